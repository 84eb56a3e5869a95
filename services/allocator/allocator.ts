/** An allocator, put together: the fleet it keeps, the decisions it remembers, the claims it sends, and what it answers. */
import { randomInt, randomUUID } from 'node:crypto'
import type { Knobs } from '../../actors/allocation/fleet.ts'
import { createCaller } from '../nats/caller.ts'
import type { NatsConnection } from '../nats/connect.ts'
import { createClaimLanes } from './claim-lanes.ts'
import { createDecisions } from './decisions.ts'
import { type Fleet, openFleet } from './fleet.ts'
import { createPlace } from './place.ts'
import { serve } from './serve.ts'

export interface AllocatorOptions {
  nc: NatsConnection
  knobs: Knobs
  /** Eight hex digits, never the same for two runs. */
  allocatorId: string
  warn: (problem: string, error: unknown) => void
}

/** Resolves when it answers. */
export async function startAllocator(options: AllocatorOptions): Promise<{ fleet: Fleet; stop(): Promise<void> }> {
  const { nc, knobs, allocatorId, warn } = options
  const fleet = await openFleet(nc, knobs, warn)
  const failed = (error: unknown) => warn('a question failed', error)
  // The id of a decision begins with its allocator's: only that one knows it.
  const id = () => `${allocatorId}${randomUUID().slice(8)}`
  const decisions = createDecisions({ position: fleet.position, now: Date.now, id })
  const lanes = createClaimLanes(createCaller(nc, `allocator-${allocatorId}`), fleet.claimsVersion)
  const place = createPlace({ fleet, knobs, lanes, decisions, now: Date.now, chance: () => randomInt(2 ** 31), failed })
  const { min_disk: minDisk, ...defaults } = knobs
  const stopServing = serve({ nc, allocatorId, fleet, place, decisions, settings: { defaults, minDisk }, failed })
  return {
    fleet,
    stop: async () => {
      await stopServing()
      fleet.close()
    },
  }
}
