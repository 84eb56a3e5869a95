/** What must hold of placement in any fleet: metamorphic properties over generated ones, and an index kept up to date equals one built afresh. */
import * as assert from 'uvu/assert'
import { type Decision, decide } from '../../actors/allocation/decide.ts'
import { type FleetDocument, flightOf, indexOf, knobsOf } from '../../actors/allocation/document.ts'
import { survivors } from '../../actors/allocation/explain.ts'
import type { Knobs, Request } from '../../actors/allocation/fleet.ts'
import { createIndex, type FleetIndex } from '../../actors/allocation/index.ts'
import { vmOf } from '../../actors/allocation/vm.ts'
import { generate } from '../samples/allocation/fleet-gen.mjs'
import { suite } from '../suite.ts'

const test = suite('placement in any fleet')
const seed = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31))
console.log(`seed ${seed} (repeat with SEED=${seed})`)

/** Four fleets of each profile, from six servers to sixty. */
const fleets = Array.from({ length: 8 }, (_, at) =>
  generate({
    servers: 6 + at * 8,
    vms: 12,
    requests: 40,
    seed: seed + at,
    profile: at % 2 ? 'fuzz' : 'realistic',
    tickets: 0.3,
  }),
)

test('adding a server that cannot be used changes nothing but who falls out', () => {
  each((document, knobs, request) => {
    const useless = structuredClone(document.servers[0]!)
    useless.uuid = 'ffffffff-ffff-4fff-bfff-ffffffffffff'
    useless['reserved'] = true
    const more = { ...document, servers: [...document.servers, { ...useless, vms: {} }] }
    assert.equal(outcome(asked(more, knobs, request)), outcome(asked(document, knobs, request)))
  })
})

test('more RAM of a server never makes a success a failure', () => {
  each((document, knobs, request, at) => {
    if (!asked(document, knobs, request).server) return
    const servers = structuredClone(document.servers)
    const grown = servers[at % servers.length]!
    grown['memory_total_bytes'] = Number(grown['memory_total_bytes']) + 64 * 2 ** 30
    assert.ok(asked({ ...document, servers }, knobs, request).server)
  })
})

test('scaling all weights keeps the winner and scales its score', () => {
  each((document, knobs, request) => {
    if (knobs.server_spread || request.package?.alloc_server_spread) return
    const scaled = { ...knobs }
    for (const name of weights) scaled[name] *= 4
    const [one, four] = [asked(document, knobs, request), asked(document, scaled, request)]
    assert.is(four.server?.uuid, one.server?.uuid)
    if (one.score !== undefined) assert.is(four.score, one.score * 4)
  })
})

test('soft hints never make a success a failure', () => {
  each((document, knobs, request) => {
    const { affinity: _, locality: __, ...vm } = request.vm
    const plain = asked(document, knobs, { ...request, vm })
    if (!plain.server) return
    const uuids = Object.keys(document.servers[0]!.vms ?? {}).slice(0, 3)
    const soft: Partial<Request['vm']>[] = [
      { locality: { near: uuids, far: uuids } },
      { locality: { strict: false, near: uuids } },
      { affinity: [{ key: 'role', operator: '==', value: '/[/', valueType: 're', isSoft: true }] },
      { affinity: [{ key: 'instance', operator: '==', value: 'f'.repeat(64), valueType: 'exact', isSoft: true }] },
      { affinity: [{ key: 'role', operator: '==', value: 'web', valueType: 'exact', isSoft: true }] },
    ]
    for (const hint of soft) {
      assert.ok(asked(document, knobs, { ...request, vm: { ...vm, ...hint } }).server, JSON.stringify(hint))
    }
  })
})

test('the same seed decides alike, and chance alone tells equals apart', () => {
  const {
    servers: [server],
    ...rest
  } = fleets[0]!
  const twins = ['a', 'b', 'c', 'd'].map(digit => ({
    ...structuredClone(server!),
    ...{ setup: true, status: 'running', reserved: false, reservoir: false, headnode: false, traits: {} },
    uuid: `${digit.repeat(8)}-0000-4000-8000-000000000000`,
    vms: {},
  }))
  const document = { ...rest, servers: twins, tickets: [] }
  const request: Request = { vm: { owner_uuid: server!.uuid, ram: 128, brand: 'joyent' }, image: {} }
  for (const twin of twins)
    Object.assign((twin as FleetDocument['servers'][number])['sysinfo'] as object, {
      'System Type': 'SunOS',
      'Zpool Encrypted': false,
    })
  const knobs: Knobs = {
    ...knobsOf(document),
    weight_unreserved_ram: 0,
    weight_unreserved_disk: 0,
    weight_uniform_random: 1,
  }
  const chosen = Array.from({ length: 64 }, (_, at) => asked(document, knobs, request, at).server?.uuid)
  assert.is(new Set(chosen).size, 4)
  assert.equal(
    chosen,
    Array.from({ length: 64 }, (_, at) => asked(document, knobs, request, at).server?.uuid),
  )
})

test('an index that saw changes decides like one built afresh from what is left', () => {
  let state = seed | 1
  const below = (limit: number) => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fffffff
    return state % limit
  }
  for (const document of fleets) {
    const knobs = { ...knobsOf(document), weight_uniform_random: 0 }
    const kept = createIndex(knobs, { sorted: true })
    const now = {
      servers: new Map<string, FleetDocument['servers'][number]>(),
      tickets: new Map(document.tickets.map(ticket => [ticket.uuid, ticket])),
    }
    for (const server of document.servers) {
      now.servers.set(server.uuid, structuredClone(server))
      fill(kept, server)
    }
    for (const ticket of now.tickets.values()) kept.setFlight(ticket.uuid, flightOf(ticket))
    for (let round = 0; round < 12; round += 1) {
      for (let changes = below(6); changes > 0; changes -= 1) change(kept, now, below)
      const fresh = createIndex(knobs, { sorted: true })
      for (const server of now.servers.values()) fill(fresh, server)
      for (const ticket of now.tickets.values()) fresh.setFlight(ticket.uuid, flightOf(ticket))
      const layouts = [kept.layout(), fresh.layout()]
      for (const request of document.requests.slice(round, round + 8)) {
        const [one, other] = layouts.map(layout => decide(layout, { request, seed: 1 }, knobs))
        assert.equal(outcome(one!), outcome(other!))
        assert.equal(steps(one!), steps(other!))
      }
    }
  }
})

const weights = [
  'weight_current_platform',
  'weight_next_reboot',
  'weight_num_owner_zones',
  'weight_uniform_random',
  'weight_unreserved_disk',
  'weight_unreserved_ram',
] as const

function each(holds: (document: FleetDocument, knobs: Knobs, request: Request, at: number) => void): void {
  for (const document of fleets) {
    const knobs = { ...knobsOf(document), weight_uniform_random: 0 }
    for (const [at, request] of document.requests.entries()) holds(document, knobs, request, at)
  }
}

const known = new WeakMap<FleetDocument, FleetIndex>()
function asked(document: FleetDocument, knobs: Knobs, request: Request, at = 1): Decision {
  const index = known.get(document) ?? indexOf(document, knobs)
  known.set(document, index)
  return decide(index.layout(), { request, seed: at }, knobs)
}

const outcome = ({ server, score, winners }: Decision) => ({ uuid: server?.uuid, score, winners })
const steps = (decision: Decision) =>
  decision.steps.map(step => [
    step.rule,
    survivors(decision, step)
      .map(({ uuid }) => uuid)
      .join(),
  ])

function fill(index: FleetIndex, { vms = {}, ...server }: FleetDocument['servers'][number]): void {
  index.setServer(server.uuid, server)
  for (const vm of Object.values(vms)) index.setVm(vm.uuid, vmOf(vm, server.uuid))
}

type Now = {
  servers: Map<string, FleetDocument['servers'][number]>
  tickets: Map<string, FleetDocument['tickets'][number]>
}

/** One change of a fleet: told to the index, and kept in what the fresh one is built from. */
function change(index: FleetIndex, { servers, tickets }: Now, below: (limit: number) => number): void {
  const list = [...servers.values()]
  const server = list[below(list.length)]!
  const vms = server.vms ?? {}
  const uuids = Object.keys(vms)
  const uuid = uuids[below(Math.max(1, uuids.length))]
  const kinds: (() => void)[] = [
    () => {
      server['reserved'] = !server['reserved']
      index.setServer(server.uuid, { ...server })
    },
    () => {
      server['status'] = server['status'] === 'running' ? 'unknown' : 'running'
      index.setServer(server.uuid, { ...server })
    },
    () => {
      if (!uuid) return
      delete vms[uuid]
      index.setVm(uuid, undefined)
    },
    () => {
      if (!uuid) return
      vms[uuid]!.max_physical_memory += 512
      index.setVm(uuid, vmOf(vms[uuid]!, server.uuid))
    },
    () => {
      const [ticket] = tickets.keys()
      if (!ticket) return
      tickets.delete(ticket)
      index.setFlight(ticket, undefined)
    },
    () => {
      if (servers.size < 4) return
      servers.delete(server.uuid)
      index.setServer(server.uuid, undefined)
      for (const gone of uuids) index.setVm(gone, undefined)
    },
  ]
  kinds[below(kinds.length)]!()
}

test.run()
