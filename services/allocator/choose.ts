/** The choice of a server for a VM: pure, over what the allocator knows of the fleet. It binds nothing. */
import { type Rejection, rejection } from '../../actors/contract/errors.ts'

/** What is known of one server. `freeMib` is undefined until its first status event. */
export interface Candidate {
  uuid: string
  status: string
  setup: boolean
  freeMib: number | undefined
}

/** The running server that is set up and has most free memory; the refusal says at which condition the last ones fell out. */
export function choose(
  candidates: readonly Candidate[],
  wanted: { memory_mib: number },
): { value: { server_uuid: string } } | { error: Rejection } {
  let left = candidates
  for (const { reason, holds } of conditions) {
    const fitting = left.filter(candidate => holds(candidate, wanted.memory_mib))
    if (fitting.length === 0) return none(left.length, reason, wanted.memory_mib)
    left = fitting
  }
  const [best] = [...left].sort((a, b) => freeOf(b) - freeOf(a) || (a.uuid < b.uuid ? -1 : 1))
  return { value: { server_uuid: best!.uuid } }
}

const freeOf = ({ freeMib }: Candidate) => freeMib ?? 0

const conditions: { reason: string; holds: (candidate: Candidate, memoryMib: number) => boolean }[] = [
  { reason: 'is set up', holds: ({ setup }) => setup },
  { reason: 'is running', holds: ({ status }) => status === 'running' },
  { reason: 'has reported its memory', holds: ({ freeMib }) => freeMib !== undefined },
  { reason: 'has enough free memory', holds: ({ freeMib }, memoryMib) => (freeMib ?? 0) >= memoryMib },
]

function none(count: number, reason: string, memoryMib: number): { error: Rejection } {
  const why = count === 0 ? 'no server is registered' : `none of ${count} servers ${reason} (${memoryMib} MiB wanted)`
  return { error: rejection('NoAllocatableServersError', `No compute resources available: ${why}`) }
}
