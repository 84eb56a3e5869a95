/** Tells the compute node actor, again and again until it answers: a report that nobody heard never happened. */
import * as v from 'valibot'
import type { ErrorCode, Rejection } from '../actors/contract/errors.ts'
import { SyncAnswer, type TaskOffer, type TaskReport, TaskReportAnswer } from '../actors/contract/messages.ts'
import type { StatusEvent, Sysinfo } from '../actors/contract/server.ts'
import { abortable, childOf, pause } from './abort.ts'
import type { Owner } from './executor.ts'
import type { AgentCall, Link } from './link.ts'
import type { Log } from './log.ts'

export interface Reporter extends Owner {
  sysinfo(sysinfo: Sysinfo, signal: AbortSignal): Promise<void>
  /** Everything that its owner thinks is open here. */
  sync(bootTimeS: number, signal: AbortSignal): Promise<TaskOffer[]>
  /** Tries once: a status that was not heard is replaced by a newer one. */
  status(status: StatusEvent, signal: AbortSignal): Promise<boolean>
  /** Called when it turns out that there is no record of this node (any more): it has to register. */
  onUnknown(listener: () => void): void
  stop(): void
}

/** Nobody could answer now; the same asked later may be answered. */
const later: ReadonlySet<ErrorCode> = new Set(['ServiceUnavailableError', 'InternalError', 'VersionTooNew'])
/** There is no record of this node: asked again, once it has registered. */
const unknown: ErrorCode = 'ResourceNotFound'
const firstPauseMs = 200
const maxPauseMs = 5_000

export function openReporter(link: Link, log: Log): Reporter {
  const stopping = abortable()
  let tellUnknown = () => {}

  /** Until answered. Rejects with the signal's reason. */
  async function untilAnswered(
    verb: AgentCall,
    payload: unknown,
    parent?: AbortSignal,
  ): Promise<{ value: unknown } | { error: Rejection }> {
    const own = childOf(stopping.signal)
    const aborted = () => own.abort(parent?.reason)
    if (parent?.aborted) aborted()
    parent?.addEventListener('abort', aborted, { once: true })
    try {
      for (let wait = firstPauseMs; ; wait = Math.min(wait * 2, maxPauseMs)) {
        own.signal.throwIfAborted()
        const reply = await link.call(verb, payload, own.signal)
        own.signal.throwIfAborted()
        if (!('error' in reply)) return reply
        if (reply.error.code === unknown && verb !== 'sync') tellUnknown()
        else if (!later.has(reply.error.code)) return reply
        log.debug({ verb, code: reply.error.code }, 'the compute node actor does not answer yet')
        await pause(wait * (0.5 + Math.random() / 2), own.signal)
      }
    } finally {
      own.release()
      parent?.removeEventListener('abort', aborted)
    }
  }

  return {
    report: async (report: TaskReport, signal?: AbortSignal) => {
      const reply = await untilAnswered('report', report, signal)
      const answer = 'value' in reply ? v.safeParse(TaskReportAnswer, reply.value) : undefined
      if (answer?.success) return answer.output
      log.warn({ task_id: report.id, status: report.status, reply }, 'the compute node actor refuses a report')
      return { go: false }
    },
    sysinfo: async (sysinfo, signal) => {
      const reply = await untilAnswered('sysinfo', { sysinfo }, signal)
      if ('error' in reply) log.error({ error: reply.error }, 'the sysinfo is refused')
    },
    sync: async (bootTimeS, signal) => {
      const reply = await untilAnswered('sync', { boot_time: bootTimeS }, signal)
      const answer = 'value' in reply ? v.safeParse(SyncAnswer, reply.value) : undefined
      if (answer?.success) return answer.output.tasks
      if ('error' in reply && reply.error.code === unknown) throw new Error('the record of this node is gone again')
      log.error({ reply }, 'the compute node actor does not say what is open')
      return []
    },
    status: async (status, signal) => {
      const reply = await link.call('status', status, signal)
      if (!('error' in reply)) return true
      if (reply.error.code === unknown) tellUnknown()
      else if (!later.has(reply.error.code)) log.warn({ error: reply.error }, 'the status is refused')
      return false
    },
    onUnknown: listener => {
      tellUnknown = listener
    },
    stop: () => stopping.abort(new Error('the agent stops')),
  }
}
