/** The agent's side of NATS: what it is asked on `agent.<uuid>.>`, what it asks of its compute node actor, its heartbeat. */
import { rejection } from '../actors/contract/errors.ts'
import type { Reply } from '../actors/contract/record.ts'
import type { NatsConnection } from '../services/nats/connect.ts'
import { publishHeartbeat } from '../services/nats/heartbeats.ts'
import { decode, encode } from '../services/nats/json.ts'
import { request } from '../services/nats/request.ts'
import { type AgentHears, parseAgent, pattern, subject } from '../services/nats/subjects.ts'

/** Calls of an agent to the actor of its node. */
export type AgentCall = 'report' | 'sync' | 'sysinfo' | 'status'

export interface Link {
  /** Asks once, within a deadline; ServiceUnavailableError when nobody answered. */
  call(verb: AgentCall, payload: unknown, signal: AbortSignal): Promise<Reply>
  /** Publishes a heartbeat, if there is a connection: one that comes late is worth nothing. */
  beat(): void
  /** Calls back now, if connected, and after every reconnect. */
  onConnected(listener: () => void): void
  /** Answers what the node is asked. */
  serve(handlers: Record<AgentHears, (payload: unknown) => Promise<Reply>>): void
  close(): void
}

const deadlineMs = 15_000
const attemptMs = 2_000

/** A link of one node over a connection, which several simulated nodes may share. */
export function openLink(nc: NatsConnection, serverUuid: string): Link {
  const listeners = new Set<() => void>()
  const subscriptions: { unsubscribe(): void }[] = []
  let isUp = !nc.isClosed()
  let isOpen = true

  const follow = async () => {
    for await (const { type } of nc.status()) {
      if (!isOpen) return
      if (type === 'disconnect') isUp = false
      if (type !== 'reconnect') continue
      isUp = true
      for (const listener of listeners) listener()
    }
  }
  follow().catch(() => {})

  return {
    call: (verb, payload, signal) =>
      request(nc, subject.agentCall(serverUuid, verb), payload, { deadlineMs, attemptMs, signal }),
    beat: () => {
      if (isUp && !nc.isClosed()) publishHeartbeat(nc, serverUuid)
    },
    onConnected: listener => {
      listeners.add(listener)
      if (isUp) listener()
    },
    serve: handlers => {
      const subscription = nc.subscribe(pattern.agent(serverUuid), {
        callback: (error, message) => {
          if (error || !message.reply) return
          const what = parseAgent(message.subject)
          answer(what && handlers[what], message.data).then(
            reply => {
              if (!nc.isClosed()) message.respond(encode(reply))
            },
            () => {},
          )
        },
      })
      subscriptions.push(subscription)
    },
    close: () => {
      isOpen = false
      listeners.clear()
      for (const subscription of subscriptions) subscription.unsubscribe()
    },
  }
}

async function answer(handler: ((payload: unknown) => Promise<Reply>) | undefined, data: Uint8Array): Promise<Reply> {
  if (!handler) return { error: rejection('ResourceNotFound', 'an agent is asked for task, cancel or read') }
  try {
    return await handler(decode(data))
  } catch (error) {
    if (error instanceof SyntaxError) return { error: rejection('InvalidContent') }
    return { error: rejection('InternalError', error instanceof Error ? error.message : String(error)) }
  }
}
