/** `$SRV.PING/INFO/STATS`: what a person with the CLI asks to see which processes are there. */
import { Svcm } from '@nats-io/services'
import type { NatsConnection } from './connect.ts'

export interface Announcement {
  name: string
  /** Semantic version. */
  version: string
  description: string
  metadata?: Record<string, string>
}

/** Announces this process until its connection closes or the returned function is called. */
export async function announce(nc: NatsConnection, announcement: Announcement): Promise<() => Promise<void>> {
  const service = await new Svcm(nc).add(announcement)
  return async () => {
    await service.stop()
  }
}

/** Whether a process announced under this name answers now. */
export async function isAnnounced(nc: NatsConnection, name: string, timeoutMs = 500): Promise<boolean> {
  return nc.request(`$SRV.PING.${name}`, '', { timeout: timeoutMs }).then(
    () => true,
    () => false,
  )
}
