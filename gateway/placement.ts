/** Which server a request of the compute agent's API means: that API knew one hypervisor, Muster has a fleet (DESIGN §6). */
import { type AllocationQuestion, CLAIM_MS, NOBODY, type ToldDecision } from '../actors/contract/allocation.ts'
import { type Rejection, rejection } from '../actors/contract/errors.ts'
import type { VmSpec } from '../actors/contract/vm.ts'
import type { Backend, Server } from './backend.ts'
import { findServer, refuseUnlessRunning } from './gates.ts'
import { hostKey } from './ids.ts'

export type Proposal = { server_uuid: string; server_named: boolean } | { error: Rejection }

/**
 * The server proposed for a hostname's first change: the one named by the caller, else the one it is bound to, else the
 * allocator's choice. The host's actor has the last word.
 */
export async function propose(
  hostname: string,
  named: unknown,
  wanted: AllocationQuestion,
  backend: Backend,
): Promise<Proposal> {
  if (named !== undefined) {
    const server = await findServer(named, backend)
    if ('error' in server) return server
    const refusal = await refuseUnlessRunning(server, backend)
    return refusal ? { error: refusal } : { server_uuid: server.uuid, server_named: true }
  }
  const bound = (await bindingOf(hostname, backend)) ?? backend.vms.named(hostname).find(vm => vm.present)?.server_uuid
  if (bound) {
    const server = await findServer(bound, backend)
    const refusal = 'error' in server ? server.error : await refuseUnlessRunning(server, backend)
    return refusal ? { error: refusal } : { server_uuid: bound, server_named: false }
  }
  const choice = await backend.allocate(wanted)
  if ('error' in choice) return { error: choice.error }
  return { server_uuid: chosen(choice.value), server_named: false }
}

/** The question for a VM that is about to be made: its place is claimed, and its create takes the place of the claim. */
export function questionOf(spec: VmSpec): AllocationQuestion {
  const { uuid, owner_uuid, memory_mib, brand, vcpus, cpu_cap, quota_gib, nics } = spec
  return {
    vm: { vm_uuid: uuid, owner_uuid: owner_uuid ?? NOBODY, ram: memory_mib, brand, vcpus, cpu_cap, quota: quota_gib },
    nic_tags: [...new Set(nics.flatMap(({ nic_tag }) => nic_tag ?? []))],
    claim_ms: CLAIM_MS,
    steps: 'none',
  }
}

/** The question for something that takes no room, such as a network. */
export const anyServer: AllocationQuestion = { vm: { owner_uuid: NOBODY, ram: 0, vcpus: 1 }, steps: 'none' }

/** The server of a choice that found one. */
export function chosen({ server_uuid }: ToldDecision): string {
  if (server_uuid === null) throw new TypeError('a choice without a server is a refusal')
  return server_uuid
}

/** The server a hostname is bound to by its actor. */
export async function bindingOf(hostname: string, backend: Backend): Promise<string | undefined> {
  const key = hostKey(hostname)
  const host = backend.hosts.get(key) ?? (await backend.hosts.load(key))
  return host?.server_uuid ?? undefined
}

/** The same for a change: a server that does not run would leave the caller waiting. */
export async function onlyRunningServer(named: unknown, backend: Backend): Promise<Server | { error: Rejection }> {
  const server = await onlyServer(named, backend)
  if ('error' in server) return server
  const refusal = await refuseUnlessRunning(server, backend)
  return refusal ? { error: refusal } : server
}

/** The server that `/networks…` means: the one named, else the only one there is. */
export async function onlyServer(named: unknown, backend: Backend): Promise<Server | { error: Rejection }> {
  if (named === 'default') return { error: rejection('ResourceNotFound', 'Server default not found') }
  if (named !== undefined) return findServer(named, backend)
  await backend.servers.barrier()
  const [first, second] = backend.servers.all()
  if (!first) return { error: rejection('ResourceNotFound', 'No server is registered') }
  return second ? { error: rejection('ServerAmbiguous') } : first
}
