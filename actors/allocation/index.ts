/**
 * The fleet, laid out for decisions: a row a server, its numbers in columns, its attributes as small numbers that alike servers share,
 * and the orders that ranks need. A change marks its server; the next decision works out only the rows marked.
 */
import type { Directory } from './affinity.ts'
import type { FleetServer, FleetVm, Flight, Knobs } from './fleet.ts'
import { KEYS, type Key } from './keys.ts'
import { createOrder, type Order } from './order.ts'
import { type Load, type Row, rowOf } from './row.ts'

export const COLUMNS = ['freeDiskMib', 'vmCount', 'cpu', 'ram', 'disk', 'platformMs', 'rebootMs'] as const
export type Column = (typeof COLUMNS)[number]

/** What a decision reads. Slots number the servers in their order. */
export interface Layout {
  rows: readonly Row[]
  columns: Readonly<Record<Column, Float64Array>>
  /** For each attribute: the class of each slot, and a row of each class. */
  classes: Readonly<Record<Key, { of: Uint32Array; samples: Row[] }>>
  /** Slots that are alike in everything but OWN_KEYS: the kind of each, and the classes of each kind by attribute. */
  kinds: { of: Uint32Array; parts: Readonly<Record<Key, number[]>>; size(): number }
  byRam: Order
  byDisk: Order
  byReboot: Order
  slotOf: ReadonlyMap<string, number>
  directory: Directory
  /** The load of that VM, on any server: one, but for a VM that is on its way to a second. */
  loadsOf(vmUuid: string): readonly Load[]
  /** Slots with how many VMs of the owner they have. */
  hostsOf(owner: string): ReadonlyMap<string, number>
}

export interface FleetIndex {
  setServer(uuid: string, server: FleetServer | undefined): void
  setVm(uuid: string, vm: FleetVm | undefined): void
  setFlight(uuid: string, flight: Flight | undefined): void
  /** Up to date with every change so far; valid until the next change. */
  layout(): Layout
  readonly size: number
}

/**
 * `sorted`: servers stand in the order of their uuids, and VMs too, so that the same fleet is the same layout whatever happened before;
 * otherwise as they were first told.
 */
export function createIndex(knobs: Knobs, { sorted }: { sorted: boolean }): FleetIndex {
  const servers = new Map<string, FleetServer>()
  const vms = new Map<string, FleetVm>()
  const vmsOn = new Map<string, Map<string, FleetVm>>()
  const vmsOf = new Map<string, Map<string, FleetVm>>()
  const flights = new Map<string, Flight>()
  const flightsTo = new Map<string, Map<string, Flight>>()
  const placed = new Map<string, Load[]>()
  const ownerHosts = new Map<string, Map<string, number>>()
  const marked = new Set<string>()
  let table = emptyTable(0)
  /** Servers came or went: slots move. */
  let moved = true

  const work = (uuid: string): Row => {
    const list = [...(vmsOn.get(uuid)?.values() ?? [])]
    const arriving = [...(flightsTo.get(uuid)?.values() ?? [])]
    if (sorted) {
      list.sort(byUuid)
      arriving.sort(byUuid)
    }
    return rowOf(servers.get(uuid)!, list, arriving, knobs)
  }
  const account = (row: Row | undefined, by: 1 | -1) => {
    for (const load of row?.loads ?? []) {
      count(ownerHosts, load.owner_uuid, load.server_uuid, by)
      if (by === 1) push(placed, load)
      else drop(placed, load)
    }
  }
  const rebuild = () => {
    const uuids = [...servers.keys()]
    if (sorted) uuids.sort()
    const before = table
    table = emptyTable(uuids.length)
    for (const [slot, uuid] of uuids.entries()) {
      const known = before.slotOf.get(uuid)
      const old = known === undefined ? undefined : before.rows[known]
      const row = old && !marked.has(uuid) ? old : work(uuid)
      if (row !== old) {
        account(old, -1)
        account(row, 1)
      }
      table.slotOf.set(uuid, slot)
      fill(table, slot, row)
    }
    for (const row of before.rows) if (!table.slotOf.has(row.uuid)) account(row, -1)
    for (const name of ORDERS) table[name].sort()
  }
  const refresh = (uuid: string) => {
    const slot = table.slotOf.get(uuid)
    if (slot === undefined) return
    account(table.rows[slot], -1)
    const row = work(uuid)
    account(row, 1)
    for (const name of ORDERS) table[name].take(slot)
    fill(table, slot, row)
    for (const name of ORDERS) table[name].put(slot)
  }
  const directory: Directory = {
    ofOwner: owner => vmsOf.get(owner)?.values() ?? [],
    get: uuid => vms.get(uuid),
    onServer: uuid => [...(vmsOn.get(uuid)?.values() ?? [])],
  }
  return {
    setServer: (uuid, server) => {
      if (servers.has(uuid) !== (server !== undefined)) moved = true
      if (server) servers.set(uuid, server)
      else servers.delete(uuid)
      marked.add(uuid)
    },
    setVm: (uuid, vm) => {
      const old = vms.get(uuid)
      if (old) {
        leave(vmsOn, old.server_uuid, uuid)
        leave(vmsOf, old.owner_uuid, uuid)
        marked.add(old.server_uuid)
        vms.delete(uuid)
      }
      if (!vm) return
      vms.set(uuid, vm)
      enter(vmsOn, vm.server_uuid, uuid, vm)
      enter(vmsOf, vm.owner_uuid, uuid, vm)
      marked.add(vm.server_uuid)
    },
    setFlight: (uuid, flight) => {
      const old = flights.get(uuid)
      if (old) {
        leave(flightsTo, old.server_uuid, uuid)
        marked.add(old.server_uuid)
        flights.delete(uuid)
      }
      if (!flight) return
      flights.set(uuid, flight)
      enter(flightsTo, flight.server_uuid, uuid, flight)
      marked.add(flight.server_uuid)
    },
    layout: () => {
      if (moved || crowded(table)) rebuild()
      // Above this many, putting each row in its place costs more than sorting once.
      else if (marked.size * 64 > servers.size) rebuild()
      else for (const uuid of marked) refresh(uuid)
      moved = false
      marked.clear()
      return {
        ...table,
        directory,
        loadsOf: uuid => placed.get(uuid) ?? [],
        hostsOf: owner => ownerHosts.get(owner) ?? none,
      }
    },
    get size() {
      return servers.size
    },
  }
}

const ORDERS = ['byRam', 'byDisk', 'byReboot'] as const
const none: ReadonlyMap<string, number> = new Map()
const byUuid = (a: { uuid: string }, b: { uuid: string }) => (a.uuid < b.uuid ? -1 : 1)

interface Table extends Omit<Layout, 'directory' | 'loadsOf' | 'hostsOf'> {
  rows: Row[]
  slotOf: Map<string, number>
  /** Class of a key, for each attribute; and the kind of a list of classes. */
  known: Record<Key, Map<string, number>>
  knownKinds: Map<string, number>
}

function emptyTable(size: number): Table {
  const columns = Object.fromEntries(COLUMNS.map(name => [name, new Float64Array(size)])) as Table['columns']
  const knownKinds = new Map<string, number>()
  const each = <T>(make: () => T) => Object.fromEntries(KEY_NAMES.map(key => [key, make()])) as Record<Key, T>
  return {
    rows: new Array<Row>(size),
    columns,
    classes: each(() => ({ of: new Uint32Array(size), samples: [] })),
    known: each(() => new Map()),
    kinds: { of: new Uint32Array(size), parts: each(() => []), size: () => knownKinds.size },
    knownKinds,
    byRam: createOrder(columns.ram),
    byDisk: createOrder(columns.disk),
    byReboot: createOrder(columns.rebootMs),
    slotOf: new Map(),
  }
}

const KEY_NAMES = Object.keys(KEYS) as Key[]
/** What varies most is judged on its own, and often not at all: it would make a kind of nearly every server. */
export const OWN_KEYS: readonly Key[] = ['tags', 'traits', 'platform', 'hvm']
const KIND_KEYS = KEY_NAMES.filter(key => !OWN_KEYS.includes(key))

function fill(table: Table, slot: number, row: Row): void {
  const { columns, classes, known } = table
  table.rows[slot] = row
  columns.freeDiskMib[slot] = row.freeDiskMib
  columns.vmCount[slot] = row.loads.length
  columns.cpu[slot] = row.spare.cpu
  columns.ram[slot] = row.spare.ram
  columns.disk[slot] = row.spare.disk
  columns.platformMs[slot] = row.platformMs
  columns.rebootMs[slot] = row.rebootMs
  for (const name of KEY_NAMES) {
    const text = KEYS[name](row)
    let number = known[name].get(text)
    if (number === undefined) {
      number = classes[name].samples.push(row) - 1
      known[name].set(text, number)
    }
    classes[name].of[slot] = number
  }
  const { kinds, knownKinds } = table
  const classesOf = KIND_KEYS.map(name => classes[name].of[slot]!)
  const text = classesOf.join()
  let kind = knownKinds.get(text)
  if (kind === undefined) {
    kind = knownKinds.size
    knownKinds.set(text, kind)
    for (const [at, name] of KIND_KEYS.entries()) kinds.parts[name].push(classesOf[at]!)
  }
  kinds.of[slot] = kind
}

/** Classes whose servers have all changed are dropped with the next rebuild. */
const crowded = ({ rows, classes, knownKinds }: Table) =>
  knownKinds.size > 2 * rows.length + 64 || KEY_NAMES.some(name => classes[name].samples.length > 2 * rows.length + 64)

function enter<T>(lists: Map<string, Map<string, T>>, at: string, uuid: string, value: T): void {
  const list = lists.get(at)
  if (list) list.set(uuid, value)
  else lists.set(at, new Map([[uuid, value]]))
}

function leave<T>(lists: Map<string, Map<string, T>>, at: string, uuid: string): void {
  const list = lists.get(at)
  list?.delete(uuid)
  if (list?.size === 0) lists.delete(at)
}

function count(hosts: Map<string, Map<string, number>>, owner: string, server: string, by: number): void {
  const of = hosts.get(owner) ?? new Map<string, number>()
  const left = (of.get(server) ?? 0) + by
  if (left > 0) of.set(server, left)
  else of.delete(server)
  if (of.size > 0) hosts.set(owner, of)
  else hosts.delete(owner)
}

function push(placed: Map<string, Load[]>, load: Load): void {
  const list = placed.get(load.uuid)
  if (list) list.push(load)
  else placed.set(load.uuid, [load])
}

function drop(placed: Map<string, Load[]>, load: Load): void {
  const left = placed.get(load.uuid)?.filter(other => other !== load) ?? []
  if (left.length > 0) placed.set(load.uuid, left)
  else placed.delete(load.uuid)
}
