/** Answers `machines.<kind>`: the statechart of a kind as this host runs it, as JSON with the same as Mermaid text. */
import { ACTORS, type ActorKinds } from '../../actors/actors.ts'
import { rejection } from '../../actors/contract/errors.ts'
import type { Reply } from '../../actors/contract/record.ts'
import { mermaid, statechart } from '../../actors/statechart.ts'
import type { NatsConnection } from '../nats/connect.ts'
import { encode } from '../nats/json.ts'
import { parseMachines, pattern } from '../nats/subjects.ts'

/** Any host answers; one of them is asked. Returns how to stop. */
export function serveMachines(nc: NatsConnection): () => void {
  const subscription = nc.subscribe(pattern.machines(), {
    queue: 'actor-hosts',
    callback: (error, message) => {
      if (!error) message.respond(encode(chartOf(parseMachines(message.subject))))
    },
  })
  return () => subscription.unsubscribe()
}

function chartOf(kind: string | undefined): Reply {
  const definition = kind === undefined ? undefined : (ACTORS as ActorKinds)[kind]
  if (!definition) return { error: rejection('ResourceNotFound', 'there is no such actor kind') }
  const chart = statechart(definition.machine)
  return { value: { ...chart, mermaid: mermaid(chart) } }
}
