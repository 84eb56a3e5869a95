/** Those of a list that a condition holds for, in their order: the array's own filter costs several times as much. */
export function keep(list: Int32Array, holds: (slot: number) => boolean): Int32Array {
  const kept = new Int32Array(list.length)
  let length = 0
  for (let at = 0; at < list.length; at += 1) {
    const slot = list[at]!
    if (holds(slot)) kept[length++] = slot
  }
  return length === list.length ? list : kept.subarray(0, length)
}
