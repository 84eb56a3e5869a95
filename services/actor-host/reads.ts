/** Calls that the owner of a node answers without a commit: a live read passed on to the agent, and what an agent asks on connect. */
import * as v from 'valibot'
import { rejection } from '../../actors/contract/errors.ts'
import { LiveRead, REPLY_MAX_BYTES, type TaskOffer } from '../../actors/contract/messages.ts'
import type { ActorRecord, Reply } from '../../actors/contract/record.ts'
import { NO_SERVER, type ServerContext } from '../../actors/contract/server.ts'
import { READS, type ReadName, type TaskRecord } from '../../actors/contract/task.ts'
import { key } from '../nats/buckets.ts'
import type { NatsConnection } from '../nats/connect.ts'
import type { Records } from '../nats/records.ts'
import { request } from '../nats/request.ts'
import { subject } from '../nats/subjects.ts'
import { fieldErrors } from '../runtime/field-errors.ts'
import type { Call } from '../runtime/runtime.ts'

/** An agent that nobody has heard listening for this long is not connected. */
const absentMs = 3_000

/** `cn.<uuid>.cmd.read`: asks the agent once and answers with what it says. Repeats of a read under way share its answer. */
export function createRead(nc: NatsConnection): Call {
  const underWay = new Map<string, Promise<Reply>>()
  return ({ id, command }) => {
    const { sender, sequence } = command
    const name = sender === undefined ? undefined : `${id} ${sender} ${sequence}`
    const same = name === undefined ? undefined : underWay.get(name)
    if (same !== undefined) return same
    const answer = ask(nc, id, command.params)
    if (name !== undefined) {
      underWay.set(name, answer)
      answer.finally(() => underWay.delete(name)).catch(() => {})
    }
    return answer
  }
}

async function ask(nc: NatsConnection, serverUuid: string, params: unknown): Promise<Reply> {
  const read = v.safeParse(LiveRead, params)
  if (!read.success) return { error: rejection('InvalidParameters', undefined, fieldErrors(read.issues)) }
  const row = Object.hasOwn(READS, read.output.read) ? READS[read.output.read as ReadName] : undefined
  if (!row) return { error: rejection('ResourceNotFound', `there is no read ${read.output.read}`) }
  const checked = v.safeParse(row.params, read.output.params)
  if (!checked.success) return { error: rejection('InvalidParameters', undefined, fieldErrors(checked.issues)) }
  const { limitMs } = row
  const options = { deadlineMs: limitMs + 1_000, attemptMs: limitMs + 1_000, absentMs }
  const reply = await request(nc, subject.agent(serverUuid, 'read'), read.output, options)
  const silent = 'error' in reply && reply.error.code === 'ServiceUnavailableError'
  return silent ? { error: rejection('AgentNotConnected') } : reply
}

/** `cn.<uuid>.agent.sync`: everything that the node has open, oldest first; ResourceNotFound before it has registered; what is too much for one answer is offered anyway. */
export function createSync(load: (serverUuid: string) => Promise<Reply>, records: Records): Call {
  return async ({ id }) => {
    const reply = await load(id)
    if ('error' in reply) return reply
    const { state, snapshot } = reply.value as ActorRecord
    if (NO_SERVER.includes(state)) return { error: rejection('ResourceNotFound', `cn ${id} not found`) }
    const { open } = snapshot.context as ServerContext
    const ids = Object.entries(open)
      .filter(([, task]) => task.state !== 'held')
      .sort(([, a], [, b]) => a.at - b.at)
      .map(([taskId]) => taskId)
    const tasks: TaskOffer[] = []
    let bytes = 0
    for (let at = 0; at < ids.length; at += loadAtOnce) {
      const part = ids.slice(at, at + loadAtOnce)
      const bodies = await Promise.all(part.map(taskId => records.get('task', key.task(taskId))))
      for (const body of bodies) {
        const task = body?.value as TaskRecord | undefined
        if (task?.status !== 'active') continue
        const offer = offerOf(task)
        bytes += JSON.stringify(offer).length
        if (bytes > REPLY_MAX_BYTES / 2) return { value: { tasks } }
        tasks.push(offer)
      }
    }
    return { value: { tasks } }
  }
}

const loadAtOnce = 32

const offerOf = ({ id, task, params = {}, req_id }: TaskRecord): TaskOffer => ({
  id,
  task,
  params,
  ...(req_id ? { req_id } : {}),
})
