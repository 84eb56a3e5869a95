/** Slots in ascending order of a column, the lower slot first among equals; kept so while rows change. */
export interface Order {
  readonly slots: Int32Array
  readonly key: Float64Array
  /** Puts everything in its place at once. */
  sort(): void
  /** Takes a slot out before its number changes, and puts it back after: one slot at a time. */
  take(slot: number): void
  put(slot: number): void
}

export function createOrder(key: Float64Array): Order {
  const slots = Int32Array.from(key, (_, slot) => slot)
  let length = key.length
  /** Where the slot is, or would be. */
  const find = (slot: number) => {
    const wanted = key[slot]!
    let low = 0
    let high = length
    while (low < high) {
      const middle = (low + high) >>> 1
      const other = slots[middle]!
      const value = key[other]!
      if (value < wanted || (value === wanted && other < slot)) low = middle + 1
      else high = middle
    }
    return low
  }
  return {
    slots,
    key,
    sort: () => {
      slots.sort((a, b) => {
        const [x, y] = [key[a]!, key[b]!]
        return x < y ? -1 : x > y ? 1 : a - b
      })
    },
    take: slot => {
      const at = find(slot)
      slots.copyWithin(at, at + 1, length)
      length -= 1
    },
    put: slot => {
      const at = find(slot)
      slots.copyWithin(at + 1, at, length)
      slots[at] = slot
      length += 1
    },
  }
}
