/**
 * Streams the disks of a stopped VM to the node that takes it over. It is held first: from here on nothing starts it on this node until
 * it is released. The token opens the stream once, so a transfer that broke off is not taken up again: the migration is taken back.
 */
import { createConnection } from 'node:net'
import { sendDisks } from '../streams/disks.ts'
import { connectStream } from '../streams/streams.ts'
import type { TaskHandler } from './task.ts'

export const machine_migrate_send: TaskHandler<'machine_migrate_send'> = {
  run: async (context, { uuid, migration, host, port, token }) => {
    const { hypervisor, signal } = context
    context.progress(1, 'hold')
    await hypervisor.holdVm(uuid, migration)
    const { disks } = await hypervisor.shapeOf(uuid)
    const details = await hypervisor.loadVm(uuid)
    const total = details?.disks.reduce((sum, disk) => sum + (disk.allocated_bytes ?? disk.size_bytes), 0) || 1
    const digests = await context.once('sent', async () => {
      const socket = await connectStream({ host, port, token }, createConnection, signal)
      let done = 0
      const sent = (bytes: number) => {
        done += bytes
        context.progress(Math.min(99, 2 + Math.floor((97 * done) / total)), `send ${done} bytes`)
      }
      const sources = disks.map((_, n) => () => hypervisor.readDisk(uuid, n))
      return sendDisks(socket, sources, sent)
    })
    return { found: { disks: digests } }
  },
}
