/** Stored deadlines in order of time, one heap a partition: only the owner's are looked at. */
import type { Kind } from '../nats/subjects.ts'

export interface Deadline {
  at: number
  kind: Kind
  id: string
}

export interface Deadlines {
  add(partition: number, deadline: Deadline): void
  /** Takes out everything due in a partition. */
  take(partition: number, now: number): Deadline[]
  /** Forgets those of a partition: another host fires them. */
  clear(partition: number): void
  size(): number
}

export function createDeadlines(): Deadlines {
  const heaps = new Map<number, Deadline[]>()
  return {
    add: (partition, deadline) => {
      const heap = heaps.get(partition) ?? []
      heaps.set(partition, heap)
      heap.push(deadline)
      rise(heap)
    },
    take: (partition, now) => {
      const heap = heaps.get(partition)
      const due: Deadline[] = []
      while (heap?.[0] && heap[0].at <= now) {
        due.push(heap[0])
        const last = heap.pop()
        if (heap.length > 0 && last) {
          heap[0] = last
          sink(heap)
        }
      }
      return due
    },
    clear: partition => void heaps.delete(partition),
    size: () => [...heaps.values()].reduce((sum, heap) => sum + heap.length, 0),
  }
}

function rise(heap: Deadline[]): void {
  let at = heap.length - 1
  while (at > 0) {
    const above = (at - 1) >> 1
    const [child, parent] = [heap[at], heap[above]]
    if (!child || !parent || parent.at <= child.at) return
    heap[at] = parent
    heap[above] = child
    at = above
  }
}

function sink(heap: Deadline[]): void {
  let at = 0
  for (;;) {
    let least = at
    for (const below of [2 * at + 1, 2 * at + 2]) {
      const [candidate, best] = [heap[below], heap[least]]
      if (candidate && best && candidate.at < best.at) least = below
    }
    const [parent, child] = [heap[at], heap[least]]
    if (least === at || !parent || !child) return
    heap[at] = child
    heap[least] = parent
    at = least
  }
}
