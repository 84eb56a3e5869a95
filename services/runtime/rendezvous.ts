/**
 * Who owns a partition: the live host with the highest hash of (host, partition). When a host comes or goes, only its own
 * partitions move, and every host works out the same answer by itself.
 */
import { PARTITIONS } from '../nats/subjects.ts'

/** The owner of a partition among these hosts; undefined when there are none. */
export function ownerOf(partition: number, hosts: readonly string[]): string | undefined {
  let best: string | undefined
  let highest = -1
  for (const host of hosts) {
    const weight = hash(`${host}/${partition}`)
    // Equal weights are decided by name, so that the order of the list does not matter.
    if (weight > highest || (weight === highest && best !== undefined && host > best)) {
      best = host
      highest = weight
    }
  }
  return best
}

/** All partitions that a host owns among these hosts. */
export function partitionsOf(host: string, hosts: readonly string[]): Set<number> {
  const owned = new Set<number>()
  for (let partition = 0; partition < PARTITIONS; partition++) {
    if (ownerOf(partition, hosts) === host) owned.add(partition)
  }
  return owned
}

export const everyPartition: ReadonlySet<number> = new Set(
  Array.from({ length: PARTITIONS }, (_, partition) => partition),
)

/** FNV-1a, then a finaliser: names that differ in one letter must not get similar weights. */
function hash(text: string): number {
  let h = 0x811c9dc5
  for (let at = 0; at < text.length; at++) h = Math.imul(h ^ text.charCodeAt(at), 0x01000193)
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b)
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35)
  return (h ^ (h >>> 16)) >>> 0
}
