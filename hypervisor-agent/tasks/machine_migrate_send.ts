/**
 * Streams a VM to the node that takes it over: the disks of a stopped one, or a running one as it is. It is held first: from here on nothing
 * starts it on this node until it is released. The token opens the stream once, so a transfer that broke off is not taken up again: the
 * migration is taken back.
 */
import { createConnection } from 'node:net'
import type { TaskParams, TaskResult } from '../../actors/contract/task.ts'
import { sendDisks } from '../streams/disks.ts'
import { offerLive, openPassage } from '../streams/live.ts'
import { connectStream } from '../streams/streams.ts'
import type { TaskContext, TaskHandler } from './task.ts'

export const machine_migrate_send: TaskHandler<'machine_migrate_send'> = {
  run: async (context, params) => {
    const { uuid, migration, live = false } = params
    context.progress(1, 'hold')
    await context.hypervisor.holdVm(uuid, migration, { live })
    const send = live ? sendRunning : sendStopped
    return { found: await context.once('sent', () => send(context, params)) }
  },
}

type Params = TaskParams<'machine_migrate_send'>
type Found = TaskResult<'machine_migrate_send'>['found']

async function sendStopped(context: TaskContext, { uuid, host, port, token }: Params): Promise<Found> {
  const { hypervisor, signal } = context
  const { disks } = await hypervisor.shapeOf(uuid)
  const details = await hypervisor.loadVm(uuid)
  const total = details?.disks.reduce((sum, disk) => sum + (disk.allocated_bytes ?? disk.size_bytes), 0) || 1
  const socket = await connectStream({ host, port, token }, createConnection, signal)
  let done = 0
  const sent = (bytes: number) => {
    done += bytes
    context.progress(Math.min(99, 2 + Math.floor((97 * done) / total)), `send ${done} bytes`)
  }
  const sources = disks.map((_, n) => () => hypervisor.readDisk(uuid, n))
  return { disks: await sendDisks(socket, sources, sent) }
}

async function sendRunning(context: TaskContext, { uuid, host, port, token }: Params): Promise<Found> {
  const { hypervisor, signal } = context
  const offer = await hypervisor.beginLive(uuid)
  const connect = (which: string) => connectStream({ host, port, token: which }, createConnection, signal)
  context.progress(5, 'prepare')
  const room = await offerLive(await connect(token), offer)
  const passage = await openPassage(room, connect)
  try {
    const progress = (percent: number) => context.progress(5 + Math.floor((94 * percent) / 100), 'copy')
    const cookie = await hypervisor.performLive(uuid, passage.room, { signal, progress })
    // The last of its memory may still be on its way: the target waits for it.
    passage.end()
    return { cookie }
  } catch (error) {
    // What still goes on behind an aborted task finds its way cut.
    passage.close()
    throw error
  }
}
