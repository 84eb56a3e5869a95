/**
 * Carries out tasks: journal, leave to begin, run in its lane, end, report. Every step can be repeated after a crash; an end is
 * decided once, in the journal, before anybody hears of it.
 */
import * as v from 'valibot'
import { ERRORS, type ErrorCode, rejection } from '../actors/contract/errors.ts'
import type { TaskOffer, TaskReport } from '../actors/contract/messages.ts'
import type { Reply } from '../actors/contract/record.ts'
import { TASKS, type TaskName } from '../actors/contract/task.ts'
import { abortable, childOf, pause, untilAborted, whileNotAborted, within } from './abort.ts'
import { type Hypervisor, HypervisorError } from './hypervisor.ts'
import type { Journal, JournalEntry } from './journal.ts'
import type { Lanes } from './lanes.ts'
import type { Log } from './log.ts'
import { TASK_HANDLERS } from './tasks/table.ts'
import { lookAt, type TaskContext, type TaskHandler, type Timings } from './tasks/task.ts'
import type { Tools } from './tools.ts'

/** The compute node's side, as a task sees it: answers, however long that takes. Rejects only when the agent stops or the signal aborts. */
export interface Owner {
  report(report: TaskReport, signal?: AbortSignal): Promise<{ go: boolean }>
}

export interface ExecutorOptions {
  hypervisor: Hypervisor
  journal: Journal
  tools: Tools
  lanes: Lanes
  owner: Owner
  timings: Timings
  log: Log
  now: () => number
  /** Least time between two progress reports of a task, ms. */
  progressEveryMs?: number
  /** How long a task waits whose journal entry cannot be written, or whose hypervisor is away, until it tries again, ms. */
  retryMs?: number
  /** A task that waited longer for its turn asks once more for leave to begin, ms. */
  leaveLifetimeMs?: number
  /** Replaces a row's limit; for tests. */
  limitMsOf?: (task: TaskName) => number
}

export interface Executor {
  /** Takes a task on: {value: {accepted: true}} once it is in the journal. A known one is accepted again. */
  accept(offer: TaskOffer): Promise<Reply>
  /** The owner has ended this task: what is under way stops at once, what has not begun does not begin. Unknown ones are left so. */
  cancel(taskId: string): void
  /** Goes on with what the journal holds; once, at start. */
  resume(): void
  /** VMs that are being made now, and the task that makes each. */
  creating(): Map<string, string>
  /** Stops working at once. What was running stays in the journal; guests are not touched. */
  stop(): void
}

/** For so long a task waits for a hypervisor that has gone (libvirtd restarts), ms. */
const returnLimitMs = 60_000
const undoLimitMs = 5 * 60_000
const lastLookMs = 5_000

export function openExecutor(options: ExecutorOptions): Executor {
  const {
    hypervisor,
    journal,
    tools,
    lanes,
    owner,
    timings,
    log,
    now,
    progressEveryMs = 1_000,
    retryMs = 5_000,
    leaveLifetimeMs = 1_000,
  } = options
  const limitMsOf = options.limitMsOf ?? (task => TASKS[task].limitMs)
  const stopping = abortable()
  const following = new Set<string>()
  /** Ended by their owner while they are followed; and how to stop the ones at work. */
  const cancelled = new Set<string>()
  const stops = new Map<string, () => void>()

  async function accept(offer: TaskOffer): Promise<Reply> {
    if (!isTask(offer.task)) return { error: rejection('TaskNotSupported', `this agent does not know ${offer.task}`) }
    const checked = v.safeParse(TASKS[offer.task].params, offer.params)
    if (!checked.success) return { error: invalid(checked.issues) }
    const past = journal.remembered(offer.id)
    try {
      // Who offers a task that ended here has lost its end: it is told again, and nothing is done again.
      if (past && !journal.find(offer.id)) repeat(past)
      else follow(await journal.add(offer, now()))
    } catch (error) {
      log.error({ err: error, task_id: offer.id }, 'the journal cannot be written')
      return { error: rejection('ServiceUnavailableError', `the agent cannot write its journal: ${messageOf(error)}`) }
    }
    return { value: { accepted: true } }
  }

  function repeat({ ended }: JournalEntry): void {
    if (ended) owner.report(ended).catch(() => {})
  }

  function follow(entry: JournalEntry): void {
    const { id, task } = entry.offer
    if (following.has(id)) return
    following.add(id)
    const goOn = async (): Promise<void> => {
      try {
        await see(entry)
      } catch (error) {
        // The journal cannot be written (a full disk): the task goes on from its last entry as soon as it can.
        if (!stopping.signal.aborted) log.error({ err: error, task_id: id, task }, 'the task cannot go on for now')
        await pause(retryMs, stopping.signal)
        await goOn()
      }
    }
    goOn()
      .catch(() => {})
      .finally(() => {
        following.delete(id)
        cancelled.delete(id)
      })
  }

  /** Sees a task through, from wherever it is. */
  async function see(entry: JournalEntry): Promise<void> {
    const { id } = entry.offer
    const ask = async () => {
      const { go } = await owner.report({ id, status: 'accepted', at: now() })
      return { go, at: performance.now() }
    }
    // Asked at once, and in line at once: tasks of a VM take their turns in the order in which they were accepted, whoever is answered first.
    const asked = entry.ended ? undefined : ask()
    asked?.catch(() => {})
    await lanes.run(laneOf(entry.offer), async () => {
      const first = await asked
      if (stopping.signal.aborted) return
      if (first) {
        // While it waited for its turn it may have been ended, by an operator or past its limit. Its time counts from now.
        const isOld = first.go && performance.now() - first.at > leaveLifetimeMs
        const { go } = isOld ? await ask() : first
        if (stopping.signal.aborted) return
        if (go && !cancelled.has(id)) await carryOut(entry)
        // Its owner has ended it meanwhile; what was begun is taken back.
        else if (entry.began_at !== null)
          await undo(entry, { code: 'TaskCancelled', message: ERRORS.TaskCancelled.text })
        if (stopping.signal.aborted) return
      }
      // Before its turn is over: the VM's record hears of what is made of it in the order in which it is made.
      if (entry.ended) await owner.report(entry.ended)
    })
    if (stopping.signal.aborted) return
    await journal.close(id)
  }

  async function carryOut(entry: JournalEntry): Promise<void> {
    const { id, task } = entry.offer
    if (entry.began_at === null) await journal.change(id, { began_at: now() })
    log.info({ task_id: id, task, req_id: entry.offer.req_id }, 'task begins')
    let failure = entry.undoing
    let result: unknown
    if (!failure) {
      const outcome = await attempt(entry)
      if (stopping.signal.aborted) return
      failure = 'failure' in outcome ? outcome.failure : null
      result = 'result' in outcome ? outcome.result : undefined
    }
    if (failure) {
      failure = await undo(entry, failure)
      if (stopping.signal.aborted) return
      result = await lastLook(entry)
      if (stopping.signal.aborted) return
    }
    const end: TaskReport = failure
      ? { id, status: 'failure', at: now(), error: failure, ...(result === undefined ? {} : { result }) }
      : { id, status: 'complete', at: now(), progress: 100, result }
    await journal.change(id, { ended: end })
    if (failure) log.warn({ task_id: id, task, ...failure }, 'task failed')
    else log.info({ task_id: id, task }, 'task complete')
  }

  async function attempt(entry: JournalEntry): Promise<{ result: unknown } | { failure: Failure }> {
    const name = entry.offer.task as TaskName
    const ending = childOf(stopping.signal)
    const limitMs = limitMsOf(name)
    const timer = setTimeout(() => ending.abort(timedOut(`the task did not end within ${limitMs / 1000} s`)), limitMs)
    const stop = () => ending.abort(new HypervisorError('TaskCancelled', ERRORS.TaskCancelled.text))
    const progress = progressOf(entry, ending.signal, stop)
    stops.set(entry.offer.id, stop)
    if (cancelled.has(entry.offer.id)) stop()
    try {
      const params = v.parse(TASKS[name].params, entry.offer.params)
      const run = () => handlerOf(name).run(contextOf(entry, ending.signal, progress), params as never)
      return { result: await untilAborted(whileUnavailable(run, ending.signal), ending.signal) }
    } catch (error) {
      if (!(error instanceof HypervisorError) && !stopping.signal.aborted) {
        log.error({ err: error, task_id: entry.offer.id, task: name }, 'a task failed for a reason it does not know')
      }
      return { failure: failureOf(error) }
    } finally {
      clearTimeout(timer)
      stops.delete(entry.offer.id)
      ending.release()
      ending.abort(new HypervisorError('TaskCancelled', 'the task is over'))
    }
  }

  /** Takes back what a failed task did, as far as its handler says how. The failure stays the task's end, and tells if that failed too. */
  async function undo(entry: JournalEntry, failure: Failure): Promise<Failure> {
    const { id, task } = entry.offer
    const handler = handlerOf(task as TaskName)
    if (!handler.undo) return failure
    await journal.change(id, { undoing: failure })
    const takeBack = async (signal: AbortSignal) => {
      const params = v.parse(TASKS[task as TaskName].params, entry.offer.params)
      const context = contextOf(entry, signal, () => {})
      await whileUnavailable(async () => handler.undo?.(context, params as never), signal, handler.undoLimitMs)
    }
    try {
      const limitMs = handler.undoLimitMs ?? undoLimitMs
      await within(limitMs, stopping.signal, () => timedOut('taking it back takes too long'), takeBack)
      return failure
    } catch (error) {
      if (stopping.signal.aborted) return failure
      log.error({ err: error, task_id: id, task }, 'a failed task could not be taken back')
      const message = `${failure.message}; what was begun could not be taken back: ${messageOf(error)}`
      return { ...failure, message }
    }
  }

  /** Again as long as the hypervisor is not there, within bounds: twice equals once, and a restart of libvirtd fails no task. */
  async function whileUnavailable<T>(run: () => Promise<T>, signal: AbortSignal, ms = returnLimitMs): Promise<T> {
    const giveUpAt = now() + ms
    for (;;) {
      try {
        return await run()
      } catch (error) {
        const isAway = error instanceof HypervisorError && error.code === 'HypervisorUnavailable'
        if (!isAway || signal.aborted || now() >= giveUpAt) throw error
        log.warn({ err: error }, 'the hypervisor is away; the task waits for it')
        await pause(Math.min(retryMs, 2_000), signal)
      }
    }
  }

  /** How the VM of a failed task looks now, so that its owner need not guess; undefined if that cannot be said in time. */
  async function lastLook(entry: JournalEntry): Promise<unknown> {
    const uuid = vmOf(entry.offer)
    if (uuid === undefined) return undefined
    const look = (signal: AbortSignal) =>
      lookAt(
        contextOf(entry, signal, () => {}),
        uuid,
      )
    return within(lastLookMs, stopping.signal, () => timedOut('the VM cannot be looked at'), look).catch(
      () => undefined,
    )
  }

  function contextOf(entry: JournalEntry, signal: AbortSignal, progress: TaskContext['progress']): TaskContext {
    const { id } = entry.offer
    return {
      taskId: id,
      hypervisor: whileNotAborted(hypervisor, signal),
      ...tools,
      timings,
      signal,
      now,
      progress,
      once: async <T>(mark: string, effect: () => T | Promise<T>): Promise<T> => {
        if (mark in entry.marks) return entry.marks[mark] as T
        const value = (await effect()) ?? null
        signal.throwIfAborted()
        await journal.change(id, ({ marks }) => ({ marks: { ...marks, [mark]: value } }))
        return value as T
      },
      tell: async changed => {
        const { go } = await owner.report({ id, status: 'active', at: now(), changed }, signal)
        if (!go) stops.get(id)?.()
      },
      inVmLane: (uuid, work) => lanes.run(vmLane(uuid), work),
      pause: ms => pause(ms, signal),
    }
  }

  /** Says progress: the newest only, one at a time, not more often than the throttle allows, none after the task is over. */
  function progressOf(entry: JournalEntry, signal: AbortSignal, cancelled: () => void): TaskContext['progress'] {
    const { id } = entry.offer
    let newest: Pick<TaskReport, 'progress' | 'step'> | undefined
    let isSending = false
    const send = async () => {
      while (newest) {
        const report: TaskReport = { id, status: 'active', at: now(), ...newest }
        newest = undefined
        const { go } = await owner.report(report, signal)
        if (!go) return cancelled()
        await pause(progressEveryMs, signal)
      }
    }
    return (progress, step) => {
      newest = { progress, step }
      if (isSending) return
      isSending = true
      // It ends by the task being over: then there is nothing left to say.
      send()
        .catch(() => {})
        .finally(() => {
          isSending = false
        })
    }
  }

  return {
    accept,
    cancel: taskId => {
      if (!following.has(taskId)) return
      cancelled.add(taskId)
      stops.get(taskId)?.()
    },
    resume: () => {
      for (const entry of journal.open()) follow(entry)
    },
    creating: () => {
      const open = journal.open().filter(({ offer, ended }) => offer.task === 'machine_create' && !ended)
      return new Map(open.map(({ offer }) => [vmOf(offer) ?? '', offer.id]))
    },
    stop: () => stopping.abort(new Error('the agent stops')),
  }
}

type Failure = { code: string; message: string }

const timedOut = (message: string) => new HypervisorError('TaskTimedOut', message)
const handlerOf = (name: TaskName) => TASK_HANDLERS[name] as TaskHandler<TaskName>

function isTask(name: string): name is TaskName {
  return Object.hasOwn(TASKS, name)
}

/** What must not run beside it on this node. */
function laneOf(offer: TaskOffer): string | null {
  const { serial } = TASKS[offer.task as TaskName]
  if (serial === 'vm') return vmLane(vmOf(offer) ?? offer.id)
  if (serial === 'node') return 'node'
  return serial === 'network' ? `network:${String(offer.params['name'])}` : null
}

/** The lane of everything that changes this VM. */
export const vmLane = (uuid: string): string => `vm:${uuid.toLowerCase()}`

function vmOf({ params }: TaskOffer): string | undefined {
  const uuid = params['uuid'] ?? (params['spec'] as { uuid?: unknown } | undefined)?.uuid
  return typeof uuid === 'string' ? uuid.toLowerCase() : undefined
}

function invalid(issues: readonly v.BaseIssue<unknown>[]) {
  const errors = issues.map(issue => ({
    field: v.getDotPath(issue) ?? 'params',
    code: issue.received === 'undefined' ? 'Missing' : 'Invalid',
    message: issue.message,
  }))
  const named = errors.map(({ field, message }) => `${field}: ${message}`).join('; ')
  return rejection('InvalidParameters', `the task's parameters are not acceptable: ${named}`, errors)
}

/** An error as the end of a task: a code of table ERRORS, and words for a person. */
function failureOf(error: unknown): Failure {
  const code: ErrorCode = error instanceof HypervisorError ? error.code : 'TaskFailed'
  return { code, message: messageOf(error) }
}

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))
