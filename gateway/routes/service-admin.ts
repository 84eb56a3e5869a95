/** Looking into one gateway and turning its log up or down. Each answer is about the process that gives it, not about the fleet. */
import * as v from 'valibot'
import { LOG_LEVELS, type LogLevel, LogLevelName } from '../../actors/contract/settings.ts'
import { type AnyRow, row } from '../row.ts'

/** What a gateway knows of itself. */
export interface Self {
  version: string
  /** When this process started. */
  startedAt: Date
  /** The process's logger: its level is read and set. */
  log: { level: string }
}

export const adminRows = ({ version, startedAt, log }: Self): AnyRow[] => [
  row({
    method: 'GET',
    path: '/loglevel',
    name: 'LogLevelGet',
    summary: 'The log level of this gateway, as bunyan\u2019s number.',
    gate: 'G0',
    strict: false,
    params: {},
    success: { status: 200, description: 'Level', body: v.object({ level: v.number(), name: v.string() }) },
    errors: [],
    handle: () => ({ status: 200, body: { level: LOG_LEVELS[log.level as LogLevel], name: log.level } }),
  }),
  row({
    method: 'POST',
    path: '/loglevel',
    name: 'LogLevelSet',
    summary: 'Sets the log level of this gateway until it ends: a name or bunyan\u2019s number.',
    gate: 'G0',
    strict: false,
    params: { level: LogLevelName },
    success: { status: 200, description: 'Set; no body' },
    errors: [],
    handle: ({ params }) => {
      log.level = params.level
      return { status: 200 }
    },
  }),
  row({
    method: 'GET',
    path: '/info',
    name: 'Info',
    summary: 'The release of this gateway.',
    gate: 'G0',
    strict: false,
    params: {},
    success: { status: 200, description: 'Version', body: v.object({ version: v.string() }) },
    errors: [],
    handle: () => ({ status: 200, body: { version } }),
  }),
  row({
    method: 'GET',
    path: '/diagnostics',
    name: 'Diagnostics',
    summary:
      'Since when this gateway runs, its memory in bytes, and who waits in it: for tasks by id, for tickets by server.',
    gate: 'G0',
    strict: false,
    params: {},
    success: {
      status: 200,
      description: 'Diagnostics',
      body: v.object({
        start_timestamp: v.string(),
        memory: v.record(v.string(), v.number()),
        taskCallbacks: v.record(v.string(), v.array(v.object({ id: v.string() }))),
        pendingActivationsByServer: v.record(v.string(), v.array(v.object({ scope: v.string(), id: v.string() }))),
      }),
    },
    errors: [],
    handle: (_, backend) => {
      const { rss, heapTotal, heapUsed, external } = process.memoryUsage()
      const { tasks, queues } = backend.waiting()
      const byServer: Record<string, { scope: string; id: string }[]> = {}
      for (const { server_uuid, scope, id, waiters } of queues) {
        byServer[server_uuid] = [...(byServer[server_uuid] ?? []), ...Array(waiters).fill({ scope, id })]
      }
      return {
        status: 200,
        body: {
          start_timestamp: startedAt.toISOString(),
          memory: { rss, heapTotal, heapUsed, external },
          taskCallbacks: Object.fromEntries(tasks.map(({ id, waiters }) => [id, Array(waiters).fill({ id })])),
          pendingActivationsByServer: byServer,
        },
      }
    },
  }),
]
