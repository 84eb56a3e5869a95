/** Tasks: one unit of work of one compute node each (cnapi-behaviour §5). A failed task is still a 200. */
import * as v from 'valibot'
import { rejection } from '../../actors/contract/errors.ts'
import { TaskRecord } from '../../actors/contract/task.ts'
import type { Backend } from '../backend.ts'
import { type AnyRow, row } from '../row.ts'
import { settled, shownTask, TASK_WAIT_MS } from '../tasks.ts'

const shown = v.omit(TaskRecord, ['params'])
const noSuchTask = { error: rejection('ResourceNotFound', 'no such task found') }

export const taskRows: AnyRow[] = [
  row({
    method: 'GET',
    path: '/tasks/:taskid',
    name: 'TaskGet',
    summary: 'A task as it stands.',
    gate: 'G0',
    strict: false,
    params: {},
    success: { status: 200, description: 'The task', body: shown },
    errors: ['ResourceNotFound'],
    handle: async ({ all }, backend) => {
      const task = await find(backend, all['taskid'])
      return task ? { status: 200, body: shownTask(task) } : noSuchTask
    },
  }),
  row({
    method: 'GET',
    path: '/tasks/:taskid/wait',
    name: 'TaskWait',
    summary: 'A task once it has ended, or as it stands after `timeout` seconds (default and at most 3600).',
    gate: 'G0',
    strict: false,
    params: { timeout: v.optional(v.unknown()) },
    success: { status: 200, description: 'The task, whatever its state', body: shown },
    errors: ['ResourceNotFound'],
    handle: async ({ all, params, signal }, backend) => {
      const task = await find(backend, all['taskid'])
      if (!task) return noSuchTask
      if (task.status !== 'active') {
        await settled(backend, task)
        return { status: 200, body: shownTask(task) }
      }
      const ended = await backend.tasks.ended(task.id, {
        deadlineMs: waitMs(params.timeout, TASK_WAIT_MS),
        signal: signal(),
      })
      if (ended) await settled(backend, ended)
      return { status: 200, body: shownTask(ended ?? (await backend.tasks.load(task.id)) ?? task) }
    },
  }),
  row({
    method: 'POST',
    path: '/tasks/:taskid/cancel',
    name: 'TaskCancel',
    summary: 'Ends an open task as TaskCancelled, so that its VM is free again; a task that has ended stays as it is.',
    gate: 'G0',
    strict: false,
    params: {},
    success: { status: 200, description: 'The task after that', body: shown },
    errors: ['ResourceNotFound'],
    handle: async ({ all, key, reqId }, backend) => {
      const task = await find(backend, all['taskid'])
      if (!task) return noSuchTask
      if (task.status !== 'active') return { status: 200, body: shownTask(task) }
      const { code, message } = rejection('TaskCancelled')
      const params = { task_id: task.id, code, message }
      const outcome = await backend.call('cn', task.server_uuid, 'task_fail', params, { key, reqId })
      if ('error' in outcome) return outcome
      return { status: 200, body: shownTask((await backend.tasks.load(task.id)) ?? task) }
    },
  }),
]

/** Ids are not validated: what cannot be one is simply not there. */
function find(backend: Backend, id: unknown) {
  const text = String(id).toLowerCase()
  return /^[a-z0-9-]{1,64}$/.test(text) ? backend.tasks.load(text) : undefined
}

/** Seconds as CNAPI reads them: what is no number, or none, is the default, which is the longest too. */
export function waitMs(timeout: unknown, longestMs: number): number {
  const seconds = Number.parseInt(String(timeout), 10)
  return seconds > 0 ? Math.min(seconds * 1000, longestMs) : longestMs
}
