/** Answers `alloc.choose`: any allocator does, one of them is asked. */
import * as v from 'valibot'
import { rejection } from '../../actors/contract/errors.ts'
import type { Reply } from '../../actors/contract/record.ts'
import type { NatsConnection } from '../nats/connect.ts'
import { decode, encode } from '../nats/json.ts'
import { subject } from '../nats/subjects.ts'
import { choose } from './choose.ts'
import type { Fleet } from './fleet.ts'

/** A question: memory in MiB; none given means that any will do. */
const Wanted = v.object({ memory_mib: v.optional(v.pipe(v.number(), v.minValue(0)), 0) })

/** Returns how to stop. */
export function serveChoices(nc: NatsConnection, fleet: Fleet, failed: (error: unknown) => void): () => void {
  const answer = async (data: Uint8Array): Promise<Reply> => {
    let payload: unknown
    try {
      payload = decode(data) ?? {}
    } catch {
      return { error: rejection('InvalidContent') }
    }
    const wanted = v.safeParse(Wanted, payload)
    if (!wanted.success) return { error: rejection('InvalidParameters', wanted.issues[0].message) }
    const choice = choose(await fleet.candidates(), wanted.output)
    if ('value' in choice) fleet.promise(choice.value.server_uuid, wanted.output.memory_mib)
    return choice
  }
  const subscription = nc.subscribe(subject.allocate(), {
    queue: 'allocators',
    callback: (error, message) => {
      if (error) return failed(error)
      answer(message.data).then(
        reply => message.respond(encode(reply)),
        error => {
          failed(error)
          message.respond(encode({ error: rejection('ServiceUnavailableError', 'The fleet cannot be read now') }))
        },
      )
    },
  })
  return () => subscription.unsubscribe()
}
