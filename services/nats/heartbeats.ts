/** Liveness beats: core NATS, in memory only, lost without harm. */
import type { NatsConnection } from './connect.ts'
import { encode } from './json.ts'
import { parseArrival, pattern, subject } from './subjects.ts'

/** Calls back for every beat of every compute node; returns how to stop. */
export function subscribeHeartbeats(nc: NatsConnection, heard: (serverUuid: string) => void): () => void {
  const subscription = nc.subscribe(pattern.heartbeats(), {
    callback: (error, message) => {
      if (error) return
      const arrival = parseArrival(message.subject)
      if (arrival?.kind === 'hb') heard(arrival.id)
    },
  })
  return () => subscription.unsubscribe()
}

/** One beat of a compute node; `at` is the sender's clock. */
export function publishHeartbeat(nc: NatsConnection, serverUuid: string): void {
  nc.publish(subject.heartbeat(serverUuid), encode({ at: Date.now() }))
}
