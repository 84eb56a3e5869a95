/**
 * Moving simulated guests. The file of the first disk is the text a test put there, framed and filled up to some size, so that what is
 * streamed and compared are real bytes.
 */
import { HypervisorError } from '../hypervisor.ts'
import type { Migrations } from '../migrations.ts'
import type { Guest } from './guests.ts'
import { contentOf } from './snapshots.ts'

export interface MigrationParts {
  call<T>(name: keyof Migrations, uuid: string, effect: () => T): Promise<T>
  need(uuid: string): Guest
  save(): void
  tell(change: { uuid: string; what: string }): void
}

const fileBytes = 64 * 1024
const pieceBytes = 8 * 1024

export function simulatedMigrations({ call, need, save, tell }: MigrationParts): Migrations {
  const changed = (guest: Guest) => {
    save()
    tell({ uuid: guest.spec.uuid, what: 'defined' })
  }
  const stopped = (uuid: string): Guest => {
    const guest = need(uuid)
    if (guest.state === 'running') throw new HypervisorError('VmNotStopped', `the VM ${uuid} is running`)
    return guest
  }
  return {
    holdVm: (uuid, migration, { live } = { live: false }) =>
      call('holdVm', uuid, () => {
        const guest = live ? need(uuid) : stopped(uuid)
        if (guest.held?.by === migration) return
        if (guest.held) throw new HypervisorError('VmBusy', `migration ${guest.held.by} holds the VM ${uuid}`)
        guest.held = { by: migration, autoboot: guest.spec.autoboot }
        guest.spec.autoboot = false
        changed(guest)
      }),
    releaseVm: (uuid, migration) =>
      call('releaseVm', uuid, () => {
        const guest = need(uuid)
        if (guest.held?.by !== migration) return
        guest.spec.autoboot = guest.held.autoboot
        guest.held = null
        changed(guest)
      }),
    completeVm: uuid =>
      call('completeVm', uuid, () => {
        const guest = need(uuid)
        if (!guest.incoming) return
        guest.incoming = false
        changed(guest)
      }),
    readDisk: (uuid, n, bytes) =>
      call('readDisk', uuid, () => inPieces(fileOf(stopped(uuid), n).subarray(0, bytes ?? Number.POSITIVE_INFINITY))),
    writeDisk: async (uuid, n, pieces) => {
      const read: Buffer[] = []
      for await (const piece of pieces) read.push(Buffer.from(piece))
      await call('writeDisk', uuid, () => {
        const guest = stopped(uuid)
        if (!guest.incoming) throw new HypervisorError('VmBusy', `the disks of VM ${uuid} are its own already`)
        if (n > 0) return
        const file = Buffer.concat(read)
        const text = file.subarray(4, 4 + file.readUInt32BE(0)).toString()
        guest.content = { ...contentOf(guest), disk: text }
        save()
      })
    },
  }
}

/** Its length, the text, and zeros; other disks hold nothing. */
function fileOf(guest: Guest, n: number): Buffer {
  const text = Buffer.from(n === 0 ? contentOf(guest).disk : '')
  const file = Buffer.alloc(Math.max(fileBytes, 4 + text.length))
  file.writeUInt32BE(text.length, 0)
  text.copy(file, 4)
  return file
}

async function* inPieces(file: Buffer): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < file.length; at += pieceBytes) yield file.subarray(at, at + pieceBytes)
}
