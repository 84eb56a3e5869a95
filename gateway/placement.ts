/** Which server a request of the compute agent's API means: that API knew one hypervisor, Muster has a fleet (DESIGN §6). */
import { type Rejection, rejection } from '../actors/contract/errors.ts'
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
  wanted: { memory_mib: number },
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
  return 'error' in choice ? choice : { server_uuid: choice.value.server_uuid, server_named: false }
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
