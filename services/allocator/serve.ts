/** Answers what is asked of allocators: choices, capacities, why a decision was made, the fleet as a document. Any allocator does. */
import * as v from 'valibot'
import { capacities } from '../../actors/allocation/capacity.ts'
import { AllocationQuestion } from '../../actors/contract/allocation.ts'
import { rejection } from '../../actors/contract/errors.ts'
import type { Reply } from '../../actors/contract/record.ts'
import type { NatsConnection } from '../nats/connect.ts'
import { decode, encode } from '../nats/json.ts'
import { type AllocatorCall, subject } from '../nats/subjects.ts'
import type { Decisions } from './decisions.ts'
import { exported } from './export.ts'
import type { Fleet } from './fleet.ts'
import type { Placed, Question } from './place.ts'

export interface ServeParts {
  nc: NatsConnection
  allocatorId: string
  fleet: Fleet
  place: (question: Question) => Promise<Placed>
  decisions: Decisions
  settings: object
  failed: (error: unknown) => void
}

const Capacity = v.object({ servers: v.optional(v.array(v.string())) })
/** `everybody`: also those are to answer that have not made it, so that their silence means something. */
const Explain = v.object({
  id: v.string(),
  server_uuid: v.optional(v.string()),
  everybody: v.optional(v.boolean()),
})
/** A page of the fleet: servers from this place on. */
const Page = v.object({ offset: v.optional(v.pipe(v.number(), v.integer(), v.minValue(0)), 0) })

/** Returns how to stop: what was asked before is answered first. */
export function serve({ nc, allocatorId, fleet, place, decisions, settings, failed }: ServeParts): () => Promise<void> {
  const calls: Record<AllocatorCall, (payload: unknown) => Promise<Reply>> = {
    choose: checked(AllocationQuestion, question => place(question as unknown as Question)),
    capacity: checked(Capacity, async ({ servers }) => {
      await fleet.barrier()
      return { value: capacities(fleet.index.layout(), servers && new Set(servers.map(uuid => uuid.toLowerCase()))) }
    }),
    decision: checked(Explain, async ({ id, server_uuid }) => {
      if (!isMine(id)) return { value: { made_here: false } }
      const value = decisions.explain(id, server_uuid)
      return value ? { value } : { error: rejection('ResourceNotFound', `No decision ${id} is kept`) }
    }),
    fleet: checked(Page, async ({ offset }) => {
      await fleet.barrier()
      return { value: exported(fleet, settings, offset) }
    }),
  }
  const isMine = (id: unknown) => String(id).startsWith(`${allocatorId}-`)
  /** Everybody hears of a decision. The one that made it answers, and the others if they are asked to. */
  const isToAnswer = (data: Uint8Array) => {
    try {
      const { id, everybody } = decode(data) as { id?: unknown; everybody?: unknown }
      return everybody === true || isMine(id)
    } catch {
      return false
    }
  }
  const underWay = new Set<Promise<void>>()
  const subscriptions = (Object.keys(calls) as AllocatorCall[]).map(call =>
    nc.subscribe(subject.allocator(call), {
      ...(call === 'decision' ? {} : { queue: 'allocators' }),
      callback: (error, message) => {
        if (error) return failed(error)
        if (call === 'decision' && !isToAnswer(message.data)) return
        const answer = async () => {
          let payload: unknown
          try {
            payload = decode(message.data) ?? {}
          } catch {
            return { error: rejection('InvalidContent') }
          }
          return calls[call](payload)
        }
        const send = (reply: Reply) => void message.respond(encode(reply))
        const answering = answer()
          .catch(error => {
            failed(error)
            return { error: rejection('ServiceUnavailableError', 'The fleet cannot be read now') }
          })
          .then(send)
          .catch(error => {
            failed(error)
            send({ error: rejection('InternalError', 'The answer is larger than a message may be') })
          })
          // The connection is gone: nobody can be told.
          .catch(failed)
          .finally(() => underWay.delete(answering))
        underWay.add(answering)
      },
    }),
  )
  return async () => {
    await Promise.all(subscriptions.map(subscription => subscription.drain()))
    await Promise.all(underWay)
  }
}

function checked<S extends v.GenericSchema>(schema: S, answer: (payload: v.InferOutput<S>) => Promise<Reply>) {
  return async (payload: unknown): Promise<Reply> => {
    const read = v.safeParse(schema, payload)
    if (read.success) return answer(read.output)
    const issue = read.issues[0]
    return { error: rejection('InvalidParameters', `${v.getDotPath(issue) ?? 'payload'}: ${issue.message}`) }
  }
}
