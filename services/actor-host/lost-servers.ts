/**
 * Servers whose record is gone without their VMs having been told: somebody removed it by hand. The tasks it held have no owner any more,
 * so the VMs that wait for one are told, by whoever owns the server's partition.
 */
import type { Caller } from '../nats/caller.ts'
import type { Log } from '../runtime/log.ts'
import type { Told } from '../runtime/pending-index.ts'
import type { Fleet } from './fleet.ts'

export interface LostServersDeps {
  call: Caller['call']
  fleet: Fleet
  owns: (serverUuid: string) => boolean
  log: Log
}

const tellAtOnce = 16

/** Called with what is told of every record; a VM that waits for nothing changes nothing. */
export function createLostServers({ call, fleet, owns, log }: LostServersDeps): (told: Told) => void {
  const tellAll = async (server_uuid: string, lost_at: number) => {
    const uuids = [...fleet.vmsOf(server_uuid).keys()]
    if (uuids.length > 0) log.warn({ server_uuid, vms: uuids.length }, 'the record of a server is gone')
    const next = async () => {
      for (let uuid = uuids.pop(); uuid; uuid = uuids.pop()) {
        const reply = await call('vm', uuid, 'server_lost', { server_uuid, lost_at })
        if ('error' in reply) log.warn({ server_uuid, vm_uuid: uuid, code: reply.error.code }, 'a VM could not be told')
      }
    }
    await Promise.all(Array.from({ length: tellAtOnce }, next))
  }

  return ({ kind, id, gone, at }) => {
    if (kind !== 'cn' || !gone || !owns(id)) return
    tellAll(id, at).catch(error => log.error({ err: error, server_uuid: id }, 'VMs of a lost server could not be told'))
  }
}
