/**
 * What is left of deleted servers: VMs and hostnames that were too many for the deletion's own commit, and a VM that was told of while its server
 * went. The owner of the server looks for them as long as the mark of the deletion stays, and has them forgotten. Nothing of this is stored:
 * whoever owns the server next finds the same records, and the mark does not go before its owner has said that nothing is left.
 */
import type { ActorRecord } from '../../actors/contract/record.ts'
import type { Caller } from '../nats/caller.ts'
import type { Log } from '../runtime/log.ts'
import type { Fleet } from './fleet.ts'

export interface DeletedServersDeps {
  call: Caller['call']
  fleet: Fleet
  owns: (serverUuid: string) => boolean
  log: Log
}

export interface DeletedServers {
  /** Called every second, once all records are known. */
  look(): void
  /** The server has registered again: what there is now is its own. */
  cameBack(serverUuid: string): void
}

/** Records of one server that are told at the same time. */
const tellAtOnce = 16

export function createDeletedServers({ call, fleet, owns, log }: DeletedServersDeps): DeletedServers {
  const underWay = new Map<string, AbortController>()
  /** Servers whose record knows that nothing is left. */
  const settled = new Set<string>()

  const leftOf = (uuid: string) => [
    ...[...fleet.vmsOf(uuid)].flatMap(([id, { state }]) =>
      state === 'forgotten' ? [] : [{ kind: 'vm' as const, id }],
    ),
    ...[...fleet.hostsOf(uuid).keys()].map(id => ({ kind: 'host' as const, id })),
  ]

  const settle = async (server_uuid: string, signal: AbortSignal) => {
    const left = leftOf(server_uuid)
    if (left.length > 0) return forgetAll(server_uuid, left, signal)
    const reply = await call('cn', server_uuid, 'forgot_all', {})
    if ('value' in reply || reply.error.code === 'ResourceNotFound') settled.add(server_uuid)
  }

  const forgetAll = async (server_uuid: string, left: ReturnType<typeof leftOf>, signal: AbortSignal) => {
    const reply = await call('cn', server_uuid, 'get', {})
    // Registered again or gone, which the index has not told yet.
    if ('error' in reply || (reply.value as ActorRecord).state !== 'deleted') return
    log.info({ server_uuid, records: left.length }, 'records of a deleted server are left and forgotten now')
    const next = async () => {
      for (let one = left.pop(); one && !signal.aborted && owns(server_uuid); one = left.pop()) {
        const { kind, id } = one
        const reply = await call(kind, id, 'forget', { server_uuid })
        if ('error' in reply) log.warn({ server_uuid, kind, id, code: reply.error.code }, 'a record was not forgotten')
      }
    }
    await Promise.all(Array.from({ length: tellAtOnce }, next))
  }

  return {
    look: () => {
      for (const uuid of settled) if (!fleet.deleted().has(uuid) || !owns(uuid)) settled.delete(uuid)
      for (const uuid of fleet.deleted()) {
        if (!owns(uuid) || underWay.has(uuid) || (settled.has(uuid) && leftOf(uuid).length === 0)) continue
        const abort = new AbortController()
        underWay.set(uuid, abort)
        settle(uuid, abort.signal)
          .catch(error => log.error({ err: error, server_uuid: uuid }, 'what is left of a deleted server stays'))
          .finally(() => underWay.delete(uuid))
      }
    },
    cameBack: uuid => underWay.get(uuid)?.abort(),
  }
}
