/**
 * Makes an image of a VM's first disk: in the node's pool, where VMs are made from it, and for an image service where the caller names one.
 * A script that prepares the disk runs in the guest: the VM is kept by a snapshot, prepared, shut down and copied, and
 * then brought back to what it was, running with its memory if it ran. What fails leaves neither image nor snapshot.
 */
import type { TaskParams } from '../../actors/contract/task.ts'
import { HypervisorError } from '../hypervisor.ts'
import { type Packed, pack } from '../images/pack.ts'
import { publish } from '../images/publish.ts'
import { shutDown } from './machine_shutdown.ts'
import { findVm, lookAt, mayBegin, needVm, type TaskContext, type TaskHandler } from './task.ts'

type Params = TaskParams<'machine_create_image'>

/** What was found before anything was done. */
interface Before {
  running: boolean
  /** The image the disk was made from. */
  origin: string | null
}

/** A copy of a large disk takes so long, and is not broken off. */
const copyLimitMs = 60 * 60_000
/** For the guest's own agent to come up after a start, and for the script, ms. */
const bootLimitMs = 5 * 60_000
const scriptLimitMs = 30 * 60_000

export const machine_create_image: TaskHandler<'machine_create_image'> = {
  run: async (context, params) => {
    const { hypervisor, images, signal } = context
    const { uuid, manifest, incremental, compression, imgapi_url, prepare_image_script: script } = params
    const name = manifest.uuid
    const before = await mayBegin(context, () => examine(context, params))
    if (script !== undefined) await prepare(context, params, before)
    context.progress(40, 'copy_disk')
    const base = incremental && before.origin !== null ? { origin: before.origin } : {}
    await context.once('copied', () => hypervisor.captureImage(uuid, { name, ...base }))
    if (script !== undefined) await restore(context, uuid, { force: false })
    context.progress(60, 'pack_image')
    const path = await images.partOf(name, context.taskId)
    // Without a service nothing else is made of it than the image in the pool.
    const how = imgapi_url === undefined ? { compression: 'none' as const } : { compression, path }
    const file = await context.once<Packed>('packed', async () =>
      pack(await hypervisor.readImage(name), { ...how, signal }),
    )
    const made = { ...manifest, ...(base.origin ? { origin: base.origin } : {}), files: [file] }
    if (imgapi_url !== undefined) {
      context.progress(80, 'publish_image')
      await context.once('published', () => publish({ service: imgapi_url, manifest: made, path, file }, signal))
    }
    await images.made(name, { source: `vm:${uuid}`, sha1: file.sha1, sha256: file.sha256, manifest: made })
    await images.giveUp(name, context.taskId)
    return { ...(await lookAt(context, uuid)), image: made }
  },
  undo: async (context, params) => {
    const { hypervisor, images, signal, taskId } = context
    const name = params.manifest.uuid
    // A task that was refused has begun nothing: an image of that name is another's.
    if ((await context.once<Before | null>('may_begin', () => null)) === null) return images.giveUp(name, taskId)
    const failed = await bringBack(context, params).catch(error => error as HypervisorError)
    // While the VM cannot be asked, its disk may still be copied: an image that was removed now would come back.
    if (failed?.code === 'HypervisorUnavailable') throw failed
    // Also where the image stays, because somebody has made a VM from it meanwhile.
    await images.discard(name, taskId, { hypervisor, signal })
    if (failed) throw failed
  },
  undoLimitMs: copyLimitMs,
}

async function examine(context: TaskContext, { uuid, manifest, ...params }: Params): Promise<Before> {
  const { hypervisor, images, signal, taskId } = context
  const { state } = await needVm(context, uuid)
  if (params.imgapi_url !== undefined) images.admit(params.imgapi_url)
  const running = state === 'running'
  if (running && params.prepare_image_script === undefined) {
    const message = `the VM ${uuid} is running: stop it, or give a script that prepares it`
    throw new HypervisorError('VmNotStopped', message)
  }
  const origin = (await hypervisor.loadVm(uuid))?.disks[0]?.image ?? null
  if (params.incremental && origin === null) {
    throw new HypervisorError('ImageHasNoOrigin', `the first disk of VM ${uuid} was not made from an image`)
  }
  if (running && !(await hypervisor.hasGuestAgent(uuid))) throw notConnected(uuid)
  await images.reserve(manifest.uuid, taskId, { hypervisor, signal })
  return { running, origin }
}

/** Keeps the VM, runs the script in it and shuts it down. Interrupted in the guest, it begins again from what was kept. */
async function prepare(context: TaskContext, { uuid, prepare_image_script: script = '' }: Params, { running }: Before) {
  const { hypervisor, now, taskId, timings } = context
  const name = snapshotOf(context)
  const attempt = now()
  context.progress(5, 'keep_vm')
  await context.once('kept', () => hypervisor.createSnapshot(uuid, { name, taskId }))
  context.progress(10, 'prepare')
  await context.once('prepared', async () => {
    if ((await context.once('attempt', () => attempt)) !== attempt) await hypervisor.rollbackSnapshot(uuid, name)
    if (!running) await hypervisor.startVm(uuid)
    await guestAgent(context, uuid)
    const { exit_code, output } = await hypervisor.runInGuest(uuid, script, { timeoutMs: scriptLimitMs })
    if (exit_code === 0) return
    throw new HypervisorError('PrepareScriptFailed', `the script ended with ${exit_code ?? 'a signal'}: ${output}`)
  })
  await context.once('shut_down', () => shutDown(context, uuid, timings.stopTimeoutMs, { from: 30, to: 35 }))
}

/** What a failed task left of the VM's preparation is taken back, in the VM's turn: whatever was still done to it has ended then. */
async function bringBack(context: TaskContext, { uuid, prepare_image_script: script }: Params): Promise<void> {
  const { hypervisor } = context
  if (!(await findVm(hypervisor, uuid))) return
  if (script === undefined) return void (await hypervisor.pendingParts(uuid))
  const name = snapshotOf(context)
  const isKept = (await context.once<unknown>('kept', () => false)) !== false
  // Nothing was done to a VM that was yet to be kept.
  if (!isKept) return hypervisor.deleteSnapshot(uuid, name)
  if ((await hypervisor.listSnapshots(uuid)).some(one => one.name === name))
    await restore(context, uuid, { force: true })
}

/** The VM as it was before it was prepared. By force: a guest that hangs, or whose script still runs, is ended first. */
async function restore(context: TaskContext, uuid: string, { force }: { force: boolean }): Promise<void> {
  const { hypervisor } = context
  context.progress(50, 'restore_vm')
  await context.once('rolled_back', async () => {
    if (force) await hypervisor.powerOff(uuid, { graceful: false })
    await hypervisor.rollbackSnapshot(uuid, snapshotOf(context))
  })
  await hypervisor.deleteSnapshot(uuid, snapshotOf(context))
}

/** Waits for the agent in a guest that was started. */
async function guestAgent({ hypervisor, now, timings, pause }: TaskContext, uuid: string): Promise<void> {
  const deadline = now() + Math.min(bootLimitMs, timings.stopTimeoutMs)
  while (!(await hypervisor.hasGuestAgent(uuid))) {
    if (now() >= deadline) throw notConnected(uuid)
    await pause(Math.min(timings.lookEveryMs, Math.max(1, deadline - now())))
  }
}

const snapshotOf = ({ taskId }: TaskContext) => `muster-image-${taskId}`

function notConnected(uuid: string): HypervisorError {
  const message = `the script cannot be run: no QEMU guest agent (qemu-guest-agent) answers in VM ${uuid}`
  return new HypervisorError('GuestAgentNotConnected', message)
}
