/** What the gateway's views keep of the stored records: the fields that listings and checks need, and no more. */
import type { ActorRecord } from '../actors/contract/record.ts'
import { NO_SERVER, type StatusEvent, type Sysinfo } from '../actors/contract/server.ts'
import type { QueueContext, TicketBody } from '../actors/contract/ticket.ts'
import type { VmContext } from '../actors/contract/vm.ts'
import type { Host, Queue, Server, Vm } from './backend.ts'
import { type InstalledPlatform, platformsIn } from './platforms.ts'

type Stored = Partial<Pick<ActorRecord, 'state' | 'status' | 'snapshot' | 'count' | 'recent'>> | undefined

/** Undefined for a server that was never registered: an actor may hold tasks for one that is only named. */
export function projectServer(value: unknown): Server | undefined {
  const { context, status, state } = parts(value)
  if (!context || NO_SERVER.includes(state)) return undefined
  const { open: _, claims: __, claims_version: ___, job, setup_failed: ____, boot_id: _____, ...server } = context
  const job_uuid = (job as { uuid: string } | undefined)?.uuid
  return { ...server, status, ...(job_uuid === undefined ? {} : { job_uuid }) } as Server
}

/** How many tasks of a server have not ended. */
export const openTasksOf = (value: unknown): number => Object.keys(parts(value).context?.['open'] ?? {}).length

/** States of a VM without a domain. `provisioning` counts as having one, since its name is taken. */
const absent = ['absent', 'missing', 'incomplete', 'destroyed', 'forgotten']

export function projectVm(value: unknown): Vm | undefined {
  const { context, status, state } = parts(value)
  if (!context || state === 'absent' || state === 'forgotten') return undefined
  const { uuid, server_uuid, name, alias, owner_uuid, brand, ram, vcpus, cpu_cap, quota } = context as unknown as Vm
  const { host_key, discovered, modified_at } = context as unknown as Vm
  const operation = context['operation'] as { task_id: string } | null
  const observed = context['observed'] as { domain_id: number | null; domain_state: string | null } | null
  return {
    uuid,
    server_uuid,
    name,
    alias,
    owner_uuid,
    brand,
    ram,
    vcpus,
    cpu_cap,
    quota,
    host_key,
    discovered,
    modified_at,
    state: status,
    present: !absent.includes(state),
    nic_tags: nicTags(context['nics']),
    task_id: operation?.task_id ?? null,
    domain_id: observed?.domain_id ?? null,
    domain_state: observed?.domain_state ?? null,
  }
}

/** Most VMs have none: they share one list. */
function nicTags(nics: unknown): readonly string[] {
  const tags = (nics as VmContext['nics'] | undefined)?.flatMap(({ nic_tag }) =>
    nic_tag === undefined ? [] : [nic_tag],
  )
  return tags?.length ? tags : none
}
const none: readonly string[] = []

export function projectHost(value: unknown): Host | undefined {
  return parts(value).context as unknown as Host | undefined
}

/** The same for the same record, however many wait for it. */
export function projectQueue(value: unknown): Queue | undefined {
  const { context } = parts(value)
  if (!context) return undefined
  const record = value as object
  const known = projected.get(record)
  if (known) return known
  const { count = 0, recent = [] } = record as NonNullable<Stored>
  const queue = { ...(context as unknown as QueueContext), count, recent }
  projected.set(record, queue)
  return queue
}
const projected = new WeakMap<object, Queue>()

/** Bodies of tickets are kept as text: most are of tickets that have ended, and only a page of them is ever shown. */
export interface KeptTicket {
  server_uuid: string
  ended: boolean
  /** ms since the epoch. */
  createdAt: number
  text: string
}

export function projectTicket(value: unknown): KeptTicket {
  const { server_uuid, status, created_at } = value as TicketBody
  return { server_uuid, ended: status !== 'queued', createdAt: Date.parse(created_at), text: JSON.stringify(value) }
}

/** Sysinfos are kept as text, since they are large and rarely asked for; of a status event only what is shown. */
export type Inventory = { sysinfo: string; platforms: InstalledPlatform[] } | { status: StatusEvent }

export function projectInventory(part: 'sysinfo' | 'status', value: unknown): Inventory {
  if (part === 'sysinfo') return { sysinfo: JSON.stringify(value), platforms: platformsIn(value as Sysinfo) }
  const { vms, meminfo, diskinfo, health, timestamp } = value as StatusEvent
  return {
    status: {
      ...(vms && { vms }),
      ...(meminfo && { meminfo }),
      ...(diskinfo && { diskinfo }),
      ...(health && { health }),
      ...(timestamp && { timestamp }),
    },
  }
}

export const sysinfoOf = (kept: Inventory | undefined): Sysinfo | undefined =>
  kept && 'sysinfo' in kept ? (JSON.parse(kept.sysinfo) as Sysinfo) : undefined

export const statusOf = (kept: Inventory | undefined): StatusEvent | undefined =>
  kept && 'status' in kept ? kept.status : undefined

function parts(value: unknown) {
  const { snapshot, status = 'unknown', state = '' } = (value ?? {}) as NonNullable<Stored>
  return { context: snapshot?.context as Record<string, unknown> | undefined, status, state }
}
