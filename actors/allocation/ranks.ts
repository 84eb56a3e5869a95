/** Survivors put in the order of a number: from the fleet's own order where that is quicker than sorting them. Equals keep the list's order. */
import type { Order } from './order.ts'
import type { Field } from './stage.ts'

/** Sorting costs about this many times what looking at one slot of the fleet's order does. */
const SORT_COST = 16

/** Descending; the list is in the order of slots. */
export function descending(order: Order, list: Int32Array): Int32Array {
  const place = new Int32Array(order.slots.length).fill(-1)
  for (let at = 0; at < list.length; at += 1) place[list[at]!] = at
  return ordered(order, list, place, 'descending')
}

/** The survivors' slots by the order's number. */
export function rankOf(order: Order, { list, place }: Field, way: 'ascending' | 'descending'): Int32Array {
  return ordered(order, list, place, way)
}

function ordered({ slots, key }: Order, list: Int32Array, place: Int32Array, way: 'ascending' | 'descending') {
  const sorted = new Int32Array(list.length)
  if (list.length * SORT_COST < slots.length) {
    sorted.set(list)
    const sign = way === 'ascending' ? 1 : -1
    return sorted.sort((a, b) => (key[a]! < key[b]! ? -sign : key[a]! > key[b]! ? sign : place[a]! - place[b]!))
  }
  let length = 0
  if (way === 'ascending') {
    for (let at = 0; at < slots.length; at += 1) if (place[slots[at]!]! >= 0) sorted[length++] = slots[at]!
  } else {
    for (let at = slots.length - 1; at >= 0; at -= 1) if (place[slots[at]!]! >= 0) sorted[length++] = slots[at]!
  }
  return tied(sorted, key, place)
}

/** Puts each run of equal numbers in the order of the list. */
function tied(sorted: Int32Array, key: Float64Array, place: Int32Array): Int32Array {
  for (let from = 0; from < sorted.length; ) {
    let to = from + 1
    let inOrder = true
    while (to < sorted.length && key[sorted[to]!] === key[sorted[from]!]) {
      if (place[sorted[to]!]! < place[sorted[to - 1]!]!) inOrder = false
      to += 1
    }
    if (!inOrder) sorted.subarray(from, to).sort((a, b) => place[a]! - place[b]!)
    from = to
  }
  return sorted
}
