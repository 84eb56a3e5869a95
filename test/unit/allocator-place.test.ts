/** Claims of an allocator where something goes wrong on their way: what it counts for them ends, and what it remembers of a node can be outlived. */
import * as assert from 'uvu/assert'
import { indexOf, knobsOf } from '../../actors/allocation/document.ts'
import { rejection } from '../../actors/contract/errors.ts'
import type { Claim } from '../../actors/contract/server.ts'
import { createClaimLanes } from '../../services/allocator/claim-lanes.ts'
import { createDecisions } from '../../services/allocator/decisions.ts'
import type { Fleet } from '../../services/allocator/fleet.ts'
import { createPlace, type Question } from '../../services/allocator/place.ts'
import type { Caller } from '../../services/nats/caller.ts'
import { UnavailableError } from '../../services/nats/records.ts'
import { eventually } from '../eventually.ts'
import { generate } from '../samples/allocation/fleet-gen.mjs'
import { suite } from '../suite.ts'

const test = suite('claims of an allocator')
const document = generate({ servers: 40, requests: 1, seed: 11 })
const knobs = knobsOf(document)
const owner = document.servers[0]!.uuid
const question = {
  vm: { owner_uuid: owner, ram: 128, brand: 'joyent', cpu_cap: 100 },
  image: {},
  claim_ms: 60_000,
} as unknown as Question

/** Places through claims that go as told; `barriers` fail from that one on. */
function place({ refused, failsFrom }: { refused: boolean; failsFrom: number }) {
  const held = new Set<string>()
  let barriers = 0
  const fleet = {
    index: indexOf(document, knobs),
    barrier: async () => {
      barriers += 1
      if (barriers >= failsFrom) throw new UnavailableError('the view is behind')
    },
    hold: (_: string, claimId: string) => void held.add(claimId),
    settle: (_: string, claimId: string) => void held.delete(claimId),
  } as unknown as Fleet
  const lanes = { claim: async () => (refused ? rejection('ClaimOutdated') : undefined) }
  const decisions = createDecisions({ position: () => ({}), now: Date.now, id: () => 'a' })
  const failures: unknown[] = []
  const failed = (error: unknown) => void failures.push(error)
  const placed = createPlace({ fleet, knobs, lanes, decisions, now: Date.now, chance: () => 1, failed })(question)
  return { placed, held, failures }
}

test('a refused claim counts no longer where the fleet cannot be read after it', async () => {
  const { placed, held } = place({ refused: true, failsFrom: 2 })
  const error = await placed.then(
    () => undefined,
    fault => fault,
  )
  assert.instance(error, UnavailableError)
  assert.is(held.size, 0)
})

test('a claim that holds is no longer counted twice where the fleet cannot be read after it', async () => {
  const { placed, held, failures } = place({ refused: false, failsFrom: 2 })
  assert.ok('value' in (await placed))
  await eventually(() => failures.length === 1, { what: 'the failed read' })
  assert.is(held.size, 0)
})

test('a node whose record begins anew takes claims again, after one try in vain', async () => {
  // An actor: takes a claim of who has seen the version it is at.
  let version = 7
  const call = async (_kind: string, _id: string, _verb: string, { seen }: { seen: number }) => {
    if (seen !== version) return { error: rejection('ClaimOutdated') }
    version += 1
    return { value: { claims_version: version } }
  }
  const lanes = createClaimLanes({ call } as unknown as Caller, () => version)
  const claim = () => lanes.claim('server', 'claim', {} as Claim)
  assert.is(await claim(), undefined)
  version = 0
  await claim()
  assert.is(await claim(), undefined)
  assert.is(version, 1)
})

test.run()
