/**
 * Moving simulated guests while they run. What a guest holds travels in the word for `finishLive`, so no port is needed. A guest that has
 * been copied stands still on its source, as a paused one does, until it is recalled or removed.
 */
import * as v from 'valibot'
import { HypervisorError } from '../hypervisor.ts'
import type { LiveMigrations } from '../live-migrations.ts'
import { hardwareOf } from './devices.ts'
import type { Guest } from './guests.ts'
import { contentOf } from './snapshots.ts'

export interface LiveMigrationParts {
  call<T>(name: keyof LiveMigrations, uuid: string, effect: () => T): Promise<T>
  need(uuid: string): Guest
  save(): void
  tell(change: { uuid: string; what: string }): void
  now(): number
  memoryFreeMib(): number
  nextDomainId(): number
}

const Cargo = v.object({ disk: v.string(), memory: v.string(), boots: v.number(), started_at: v.number() })

export function simulatedLiveMigrations(parts: LiveMigrationParts): LiveMigrations {
  const { call, need, save, tell, now, memoryFreeMib, nextDomainId } = parts
  const changed = (guest: Guest, what: string) => {
    guest.modified_at = now()
    save()
    tell({ uuid: guest.spec.uuid, what })
  }
  const running = (guest: Guest): Guest => {
    if (guest.state === 'running') return guest
    if (guest.departed) throw interrupted(`the VM ${guest.spec.uuid} is paused`)
    throw new HypervisorError('VmNotRunning', `the VM ${guest.spec.uuid} is not running`)
  }
  return {
    beginLive: uuid =>
      call('beginLive', uuid, () => {
        running(need(uuid))
        return { definition: '', cookie: '' }
      }),
    prepareLive: uuid =>
      call('prepareLive', uuid, () => {
        const guest = need(uuid)
        if (!guest.incoming) throw new HypervisorError('VmBusy', `the VM ${uuid} does not wait for anything`)
        const free = memoryFreeMib()
        if (guest.spec.memory_mib > free) {
          const message = `VM ${uuid} needs ${guest.spec.memory_mib} MiB, the server has ${Math.max(0, free)} MiB free`
          throw new HypervisorError('InsufficientMemory', message)
        }
        return { cookie: '' }
      }),
    performLive: (uuid, _room, { progress }) =>
      call('performLive', uuid, () => {
        const guest = running(need(uuid))
        progress(50)
        const { disk, memory } = contentOf(guest)
        const cargo = { disk, memory: memory.text, boots: guest.boots, started_at: guest.started_at }
        guest.departed = { domain_id: guest.domain_id }
        Object.assign(guest, { state: 'stopped', domain_id: null })
        changed(guest, 'suspended')
        return Buffer.from(JSON.stringify(cargo)).toString('base64')
      }),
    finishLive: (uuid, cookie) =>
      call('finishLive', uuid, () => {
        const guest = need(uuid)
        if (guest.state === 'running') return {}
        const cargo = v.safeParse(Cargo, wordIn(cookie))
        if (!guest.incoming || !cargo.success) throw interrupted(`VM ${uuid} has not arrived`)
        const { disk, memory, boots, started_at } = cargo.output
        Object.assign(guest, {
          state: 'running',
          domain_id: nextDomainId(),
          boots,
          started_at,
          hardware: hardwareOf(guest),
          content: { disk, memory: { boot: boots, text: memory } },
        })
        changed(guest, 'resumed')
        return { downtime_ms: 0 }
      }),
    recallLive: uuid =>
      call('recallLive', uuid, () => {
        const guest = need(uuid)
        if (!guest.departed) return
        Object.assign(guest, { state: 'running', domain_id: guest.departed.domain_id, departed: null })
        changed(guest, 'resumed')
      }),
  }
}

function wordIn(cookie: string): unknown {
  try {
    return JSON.parse(Buffer.from(cookie, 'base64').toString())
  } catch {
    return undefined
  }
}

const interrupted = (message: string) => new HypervisorError('MigrationInterrupted', message)
