/**
 * The fleet in memory, as the records tell it: servers with their claims, sysinfos and status events, VMs, and open provision tickets. Each
 * change reaches the placement index as it comes; only the rows it touches are worked out again.
 */
import type { Knobs } from '../../actors/allocation/fleet.ts'
import { createIndex, type FleetIndex } from '../../actors/allocation/index.ts'
import { isPaused } from '../../actors/compute-node/job-run.ts'
import { DEFAULTS_ID } from '../../actors/contract/boot.ts'
import {
  type Claim,
  NO_SERVER,
  type ServerContext,
  type StatusEvent,
  type Sysinfo,
} from '../../actors/contract/server.ts'
import type { QueueContext, TicketBody } from '../../actors/contract/ticket.ts'
import type { VmContext } from '../../actors/contract/vm.ts'
import { parseInventoryKey } from '../nats/buckets.ts'
import type { NatsConnection } from '../nats/connect.ts'
import { decodeHead } from '../nats/json.ts'
import { isKind } from '../nats/subjects.ts'
import { openView, type View } from '../nats/view.ts'
import { fleetServer, fleetVm, flightOfClaim, flightOfMigration, flightsOf, type StoredServer } from './server.ts'

export interface Fleet {
  index: FleetIndex
  /** Everything acknowledged before this call is in the index. */
  barrier(): Promise<void>
  /** Counts a claim that is on its way to its node's actor; after `settle` it counts as long as the view has it. */
  hold(serverUuid: string, claimId: string, claim: Claim): void
  settle(serverUuid: string, claimId: string): void
  /** Last sequence seen of each bucket: what the fleet was when something was decided. */
  position(): Record<string, number>
  /** How often the claims of a server had changed, as the view has it. */
  claimsVersion(serverUuid: string): number
  /** The fleet as documents show it. */
  servers(): Iterable<StoredServer>
  tickets(): Iterable<OpenTicket>
  close(): void
}

/** A ticket of scope `vm` and action `provision` that is not ended. */
export type OpenTicket = Pick<TicketBody, 'uuid' | 'server_uuid' | 'scope' | 'id' | 'action' | 'extra' | 'created_at'>

export async function openFleet(
  nc: NatsConnection,
  knobs: Knobs,
  warn: (problem: string, error: unknown) => void,
): Promise<Fleet> {
  const index = createIndex(knobs, { sorted: true })
  const open = <T>(
    bucket: 'cn' | 'vm' | 'inventory' | 'waitlist' | 'ticket',
    project: (key: string, value: unknown) => T,
  ) =>
    openView<NonNullable<T>>({
      nc,
      bucket,
      project: (key, value) => project(key, value) ?? undefined,
      // Of a record only the state: a fleet of 200,000 VMs is read in half the time.
      ...(isKind(bucket) ? { read: decodeHead } : {}),
      warn,
    })
  const [servers, vms, inventory, queues, tickets] = await Promise.all([
    open('cn', (id, value) => (id === DEFAULTS_ID ? undefined : projectServer(value))),
    open('vm', (_, value) => projectVm(value)),
    open('inventory', projectInventory),
    open('waitlist', (_, value) => projectQueue(value)),
    open('ticket', (_, value) => projectTicket(value)),
  ])

  const claims = new Map<string, Set<string>>()
  /**
   * A claim that has left its node's record may have been taken up by its VM, whose record was written before but may come later here: it
   * counts until the view of VMs is there too.
   */
  const given = (uuid: string, id: string) => {
    const drop = () => {
      if (!claims.get(uuid)?.has(id)) index.setFlight(id, undefined)
    }
    vms.barrier().then(drop, drop)
  }
  const server = (uuid: string) => {
    const stored = servers.get(uuid)
    const sysinfo = inventory.get(`${uuid}.sysinfo`)?.sysinfo
    index.setServer(uuid, stored && fleetServer(stored, sysinfo, inventory.get(`${uuid}.status`)?.status))
    const now = stored ? flightsOf(stored.context) : []
    const known = claims.get(uuid)
    for (const id of known ?? []) if (!now.some(flight => flight.uuid === id)) given(uuid, id)
    for (const flight of now) if (!known?.has(flight.uuid)) index.setFlight(flight.uuid, flight)
    if (now.length > 0) claims.set(uuid, new Set(now.map(flight => flight.uuid)))
    else claims.delete(uuid)
  }
  /** Tickets that a queue holds open, by queue. A body alone may be of a create that never came to be. */
  const held = new Map<string, Set<string>>()
  const openIn = new Set<string>()
  const ticket = (uuid: string) => {
    const body = openIn.has(uuid) ? tickets.get(uuid) : undefined
    index.setFlight(uuid, body && { uuid, server_uuid: body.server_uuid, id: body.id, extra: sized(body.extra) })
  }
  const queue = (key: string) => {
    const now = new Set(queues.get(key) ?? [])
    const before = held.get(key) ?? new Set()
    if (now.size > 0) held.set(key, now)
    else held.delete(key)
    for (const uuid of before) if (!now.has(uuid) && openIn.delete(uuid)) ticket(uuid)
    for (const uuid of now) {
      if (openIn.has(uuid)) continue
      openIn.add(uuid)
      ticket(uuid)
    }
  }
  each(servers, server)
  each(vms, uuid => {
    const stored = vms.get(uuid)
    index.setVm(uuid, stored?.vm)
    index.setFlight(uuid, stored?.leaving)
  })
  each(queues, queue)
  inventory.onChange(({ key }) => {
    const uuid = parseInventoryKey(key)?.serverUuid
    if (uuid) server(uuid)
  })
  tickets.onChange(({ key }) => ticket(key))
  const views = [servers, vms, inventory, queues, tickets]
  return {
    index,
    barrier: async () => {
      await Promise.all(views.map(view => view.barrier()))
    },
    hold: (uuid, claimId, claim) => index.setFlight(claimId, flightOfClaim(uuid, claimId, claim)),
    settle: (uuid, claimId) => {
      if (!claims.get(uuid)?.has(claimId)) index.setFlight(claimId, undefined)
    },
    position: () => ({
      cn: servers.position(),
      vm: vms.position(),
      inventory: inventory.position(),
      waitlist: queues.position(),
      ticket: tickets.position(),
    }),
    claimsVersion: uuid => servers.get(uuid)?.context.claims_version ?? 0,
    servers: function* () {
      for (const [, stored] of servers.entries()) yield stored
    },
    tickets: function* () {
      for (const uuid of openIn) {
        const body = tickets.get(uuid)
        if (body) yield body
      }
    },
    close: () => {
      for (const view of views) view.close()
    },
  }
}

/** What is there already, and every change from now on. */
function each<T>(view: View<T>, take: (key: string) => void): void {
  for (const [key] of view.entries()) take(key)
  view.onChange(({ key }) => take(key))
}

type Stored = { state?: string; status?: string; snapshot?: { context?: unknown } }

function projectServer(value: unknown): StoredServer | undefined {
  const { state = '', status = 'unknown', snapshot } = value as Stored
  if (!snapshot?.context || NO_SERVER.includes(state)) return undefined
  const { open: _, ...context } = snapshot.context as ServerContext
  // A node that takes no tasks takes no VM, however much it has left.
  return { status: isPaused(context as ServerContext) ? 'paused' : status, context: { ...context, open: {} } }
}

function projectVm(value: unknown) {
  const { state = '', snapshot } = value as Stored
  if (!snapshot?.context) return undefined
  const context = snapshot.context as VmContext
  const vm = fleetVm(state, context)
  return vm && { vm, leaving: flightOfMigration(context) }
}

/** Of a status event only sizes: what VMs there are is told by their own records. */
function projectInventory(key: string, value: unknown): { sysinfo?: Sysinfo; status?: StatusEvent } {
  if (parseInventoryKey(key)?.part === 'sysinfo') return { sysinfo: value as Sysinfo }
  const { meminfo, diskinfo } = value as StatusEvent
  return { status: { ...(meminfo ? { meminfo } : {}), ...(diskinfo ? { diskinfo } : {}) } }
}

/** Uuids of the open tickets of a VM's queue; undefined for queues about anything else. */
function projectQueue(value: unknown): string[] | undefined {
  const context = (value as Stored).snapshot?.context as QueueContext | undefined
  return context?.scope === 'vm' && context.open.length > 0 ? context.open.map(([uuid]) => uuid) : undefined
}

function projectTicket(value: unknown): OpenTicket | undefined {
  const { uuid, server_uuid, scope, id, action, extra, created_at, status } = value as TicketBody
  if (scope !== 'vm' || action !== 'provision' || status !== 'queued') return undefined
  return { uuid, server_uuid, scope, id, action, extra, created_at }
}

/** A ticket that tells no memory tells no dimensions. */
function sized(extra: Record<string, unknown>) {
  return typeof extra['max_physical_memory'] === 'number' ? extra : undefined
}
