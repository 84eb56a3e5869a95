/**
 * A fleet as one document, `fleet/1`: servers as CNAPI shows them with their VMs embedded, waitlist tickets, settings, and requests to
 * decide. What the generator prints, `GET /fleet` exports and `npm run allocate` reads.
 */
import type { FleetServer, Flight, Knobs, Request } from './fleet.ts'
import { KNOBS } from './fleet.ts'
import { createIndex, type FleetIndex } from './index.ts'
import { type DocumentVm, vmOf } from './vm.ts'

export interface FleetDocument {
  format: 'fleet/1'
  /** By the allocator's keys; what is left out has its default. */
  defaults: Partial<Knobs>
  minDisk?: boolean
  servers: (FleetServer & { vms?: Record<string, DocumentVm> })[]
  tickets: DocumentTicket[]
  requests: Request[]
}

export interface DocumentTicket {
  uuid: string
  server_uuid: string
  scope: string
  action?: string
  id: string
  status: string
  extra?: Flight['extra']
}

/** Settings of a document. Ratios and the VM limit of 0 mean the built-in ones. */
export function knobsOf({ defaults, minDisk }: Pick<FleetDocument, 'defaults' | 'minDisk'>): Knobs {
  const given = Object.fromEntries(Object.entries(defaults).filter(([, value]) => value !== undefined && value !== ''))
  const knobs: Knobs = { ...KNOBS, ...given, min_disk: minDisk ?? false }
  for (const name of builtInAtZero) knobs[name] = Number(knobs[name]) || KNOBS[name]
  return knobs
}
const builtInAtZero = [
  'filter_vm_limit',
  'overprovision_ratio_cpu',
  'overprovision_ratio_ram',
  'overprovision_ratio_disk',
] as const

/** An index of the document's fleet, servers in its order. */
export function indexOf(document: FleetDocument, knobs = knobsOf(document)): FleetIndex {
  const index = createIndex(knobs, { sorted: false })
  for (const { vms = {}, ...server } of document.servers) {
    index.setServer(server.uuid, server)
    for (const vm of Object.values(vms)) index.setVm(vm.uuid, vmOf(vm, server.uuid))
  }
  for (const ticket of document.tickets) index.setFlight(ticket.uuid, flightOf(ticket))
  return index
}

/** The VM on its way that a ticket stands for: of scope vm and action provision, and still open. */
export function flightOf({ uuid, server_uuid, scope, action, id, status, extra }: DocumentTicket): Flight | undefined {
  const open = scope === 'vm' && action === 'provision' && (status === 'active' || status === 'queued')
  return open ? { uuid, server_uuid, id, extra } : undefined
}
