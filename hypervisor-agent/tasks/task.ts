/** What a task of the agent is given and gives: a handler per row of table TASKS, with its undo beside it. */
import type { TaskName, TaskParams, TaskResult } from '../../actors/contract/task.ts'
import type { VmSummary } from '../../actors/contract/vm.ts'
import type { ChangedVm } from '../../actors/contract/vm-changes.ts'
import { type Hypervisor, HypervisorError, type VmState } from '../hypervisor.ts'
import type { Tools } from '../tools.ts'

/** Waits of the tasks, ms. */
export interface Timings {
  /** A power button or reboot request that was not followed is sent again after this: a booting guest loses it. */
  pressEveryMs: number
  /** Events can be lost, so a wait looks by itself this often. */
  lookEveryMs: number
  /** How long a guest has to follow, where the caller did not say. Three minutes: a busy guest may need two to stop its services. */
  stopTimeoutMs: number
  /** A VM that a migration has started must stay up so long. */
  bootWatchMs: number
}

export const defaultTimings: Timings = {
  pressEveryMs: 4_000,
  lookEveryMs: 1_000,
  stopTimeoutMs: 180_000,
  bootWatchMs: 5_000,
}

export interface TaskContext extends Tools {
  taskId: string
  /** Every call fails once the task is aborted: what was hanging cannot go on behind its back. */
  hypervisor: Hypervisor
  timings: Timings
  /** Ends with TaskTimedOut or TaskCancelled. */
  signal: AbortSignal
  /** ms since the epoch. */
  now(): number
  /** 0 to 100, with the name of the step that begins. */
  progress(percent: number, step: string): void
  /**
   * Does it once in the life of the task and remembers its value (JSON) in the journal: a task that is taken up again after a crash
   * gets the remembered value. The mark is written after the effect, so an effect may still happen twice.
   */
  once<T>(mark: string, effect: () => T | Promise<T>): Promise<T>
  /** What a task of the node has made of VMs, as their records are to have it. Resolves when it was heard. */
  tell(changed: ChangedVm[]): Promise<void>
  /** Does it when everything before it that changes this VM has ended: for a task of the node that works on VMs. */
  inVmLane<T>(uuid: string, work: () => Promise<T>): Promise<T>
  /** Waits that long, or until the task is aborted. */
  pause(ms: number): Promise<void>
}

export interface TaskHandler<N extends TaskName> {
  run(context: TaskContext, params: TaskParams<N>): Promise<TaskResult<N>>
  /** Takes back what a failed run did; may happen twice. */
  undo?(context: TaskContext, params: TaskParams<N>): Promise<void>
  /** How long taking back may wait for what the hypervisor has still under way and does not break off; five minutes where it is not said. */
  undoLimitMs?: number
}

export type TaskHandlers = { [N in TaskName]: TaskHandler<N> }

/** The VM as listed; VmNotFound if there is none. */
export async function needVm({ hypervisor }: Pick<TaskContext, 'hypervisor'>, uuid: string): Promise<VmState> {
  const vm = await findVm(hypervisor, uuid)
  if (!vm) throw new HypervisorError('VmNotFound', `there is no VM ${uuid} on this server`)
  return vm
}

/** The VM as listed. From the listing, because it never waits for a guest that hangs. */
export async function findVm(hypervisor: Hypervisor, uuid: string): Promise<VmState | undefined> {
  const wanted = uuid.toLowerCase()
  return (await hypervisor.listVms()).find(vm => vm.uuid.toLowerCase() === wanted)
}

/** The result of a task about a VM: how it looks now. */
export async function lookAt(context: TaskContext, uuid: string): Promise<{ vm: VmSummary | null }> {
  const vm = await findVm(context.hypervisor, uuid)
  return { vm: vm ? context.installs.annotate(vm) : null }
}

/**
 * Decides once whether a task may begin; a task taken up again is not asked a second time, since what it finds may be its own work.
 * Returns what `check` found the first time.
 */
export function mayBegin<T>(context: TaskContext, check: () => Promise<T>): Promise<T> {
  return context.once('may_begin', check)
}
