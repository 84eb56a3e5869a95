/**
 * What a server's node has against what its VMs' records want: asked of the agent now, or, where it does not answer, taken from its last
 * report. Nothing here changes anything.
 */
import * as v from 'valibot'
import { type Rejection, rejection } from '../actors/contract/errors.ts'
import { FoundPage } from '../actors/contract/found.ts'
import { READS } from '../actors/contract/task.ts'
import type { VmContext, VmSummary } from '../actors/contract/vm.ts'
import type { Backend } from './backend.ts'
import { type Difference, differences, isComingOrGoing, reportedDifferences, type WantedVm } from './drift.ts'

type FoundVm = FoundPage['vms'][0]
type Timed = { since: number | null }
type About = { vm_uuid: string; name: string }

export interface Survey {
  /** The agent's clock when it looked, ms since the epoch; null where it has never reported. */
  seenAt: number | null
  /** Why the agent was not asked, or did not answer: then it is as the last report tells. */
  notLive?: Rejection
  drift: (About & Difference & Timed)[]
  /** The definition is as wanted, the running guest has it when it boots next. */
  pending: (About & { field: string })[]
  zombies: (About & Timed & { state: string; operation?: Difference['operation'] })[]
  missing: (About & Timed & { operation?: Difference['operation'] })[]
  /** Those that could not be looked at, or whose record could not be read. */
  unread: { vm_uuid: string; code: string; message: string }[]
  /** What was compared, by uuid. */
  wanted: Map<string, WantedVm>
  found: Map<string, FoundVm>
}

/** A live read may take so much longer than the agent's own limit, ms. */
const graceMs = 2_000
/** Most pages of one node, and records asked for at a time. */
const pagesMax = 200
const atOnce = 16

/** States in which a VM is to be on its node. */
const isWanted = ({ state, context }: WantedVm) =>
  !context.discovered && !['absent', 'incomplete', 'destroyed', 'forgotten'].includes(state)

export async function survey(backend: Backend, serverUuid: string, reqId: string): Promise<Survey> {
  const told = await askAgent(backend, serverUuid, reqId)
  await Promise.all([backend.vms.barrier(), backend.inventory.barrier()])
  const uuids = backend.vms.of(serverUuid).map(({ uuid }) => uuid)
  // Those of other servers too: what is found here may be wanted elsewhere.
  const strange = 'error' in told ? [] : told.vms.map(({ uuid }) => uuid).filter(uuid => !uuids.includes(uuid))
  const known = await records(backend, [...uuids, ...strange], reqId)
  return 'error' in told ? fromReport(backend, serverUuid, told.error, known) : live(serverUuid, told, known)
}

type Told = Pick<FoundPage, 'at' | 'vms' | 'unread'>

function live(serverUuid: string, { at, vms, unread }: Told, known: Records): Survey {
  const made = empty(at, known)
  made.unread.push(...unread.map(({ uuid, code, message }) => ({ vm_uuid: uuid, code, message })))
  const hasEnded = ({ context }: WantedVm) => context.server_uuid === serverUuid && context.settled_at >= at
  for (const found of vms) {
    if (known.unread.has(found.uuid)) continue
    made.found.set(found.uuid, found)
    const about = { vm_uuid: found.uuid, name: found.name }
    const vm = known.wanted.get(found.uuid)
    // What it was looked at for has ended since.
    if (vm && hasEnded(vm)) {
      made.unread.push({ vm_uuid: found.uuid, code: 'VmBusy', message: 'it was changed while it was looked at' })
      continue
    }
    if (!vm || vm.context.server_uuid !== serverUuid || !isWanted(vm)) {
      const since = vm?.context.discovered ? vm.context.created_at : (found.since['state'] ?? found.changed_at)
      made.zombies.push({ ...about, state: found.state, since, ...inFlight(vm) })
      continue
    }
    const differing = differences(vm, found)
    const since = ({ field }: Difference) => found.since[field] ?? found.changed_at
    made.drift.push(...differing.map(one => ({ ...about, ...one, since: since(one) })))
    const waits = found.pending.filter(field => !differing.some(one => one.field === field))
    made.pending.push(...waits.map(field => ({ ...about, field })))
  }
  const isUnread = (uuid: string) => unread.some(one => one.uuid === uuid)
  // One that was made while the others were looked at is not missing.
  addMissing(made, serverUuid, (uuid, vm) => made.found.has(uuid) || isUnread(uuid) || hasEnded(vm))
  return made
}

/** As far as a status event tells. */
function fromReport(backend: Backend, serverUuid: string, notLive: Rejection, records: Records): Survey {
  const { vms = {}, timestamp } = backend.inventory.status(serverUuid) ?? {}
  const made = { ...empty(Date.parse(timestamp ?? '') || null, records), notLive }
  if (made.seenAt === null) return made
  for (const vm of Object.values(vms)) {
    const uuid = vm.uuid.toLowerCase()
    if (records.unread.has(uuid)) continue
    const known = records.wanted.get(uuid)
    const since = Date.parse(vm.last_modified ?? '') || null
    const about = { vm_uuid: uuid, name: vm.name ?? uuid }
    if (!known || known.context.server_uuid !== serverUuid || !isWanted(known))
      made.zombies.push({ ...about, state: vm.state, since, ...inFlight(known) })
    else made.drift.push(...reportedDifferences(known, partsTold(vm)).map(one => ({ ...about, ...one, since })))
  }
  // A VM that was made after the report cannot be in it.
  const seenAt = made.seenAt
  addMissing(made, serverUuid, (uuid, { context }) => uuid in vms || context.modified_at >= seenAt)
  return made
}

function addMissing(made: Survey, serverUuid: string, isThere: (uuid: string, vm: WantedVm) => boolean): void {
  for (const [uuid, vm] of made.wanted) {
    if (vm.context.server_uuid !== serverUuid || !isWanted(vm) || isThere(uuid, vm)) continue
    const { name, observed, modified_at } = vm.context
    made.missing.push({ vm_uuid: uuid, name, since: observed?.at ?? modified_at, ...inFlight(vm) })
  }
}

/** The operation that makes a VM come or go. */
function inFlight(vm: WantedVm | undefined): { operation?: Difference['operation'] } {
  const operation = vm?.context.operation
  if (!vm || !operation || !isComingOrGoing(vm.context)) return {}
  return { operation: { verb: operation.verb, task_id: operation.task_id } }
}

function partsTold(vm: VmSummary): Record<string, unknown> {
  const { state, name, vcpus, owner_uuid, cpu_cap, max_physical_memory: ram } = vm
  const told = { state, name, vcpus, owner_uuid, cpu_cap, ram }
  return Object.fromEntries(Object.entries(told).filter(([, value]) => value !== undefined))
}

function empty(seenAt: number | null, { wanted, unread }: Records): Survey {
  const unknown = [...unread].map(([vm_uuid, { code, message }]) => ({ vm_uuid, code, message }))
  return { seenAt, drift: [], pending: [], zombies: [], missing: [], unread: unknown, wanted, found: new Map() }
}

async function askAgent(backend: Backend, serverUuid: string, reqId: string): Promise<Told | { error: Rejection }> {
  const all: Told = { at: 0, vms: [], unread: [] }
  const deadlineMs = READS.machine_found.limitMs + graceMs
  let after: string | undefined
  for (let n = 0; n < pagesMax; n++) {
    const read = { read: 'machine_found', params: after === undefined ? {} : { after } }
    const outcome = await backend.call('cn', serverUuid, 'read', read, { reqId, deadlineMs })
    if ('error' in outcome) return outcome
    const page = v.parse(FoundPage, outcome.value)
    all.at ||= page.at
    all.vms.push(...page.vms)
    all.unread.push(...page.unread)
    after = page.next
    if (after === undefined) return all
  }
  // Of VMs on further pages it would seem that they are missing.
  return { error: rejection('HypervisorError', `the agent tells more than ${pagesMax} pages of VMs`) }
}

/** Whole records, as their actors have them. Of a VM whose record cannot be had nothing is said but that: it may well be ordered. */
interface Records {
  wanted: Map<string, WantedVm>
  unread: Map<string, Rejection>
}

async function records(backend: Backend, uuids: string[], reqId: string): Promise<Records> {
  const wanted = new Map<string, WantedVm>()
  const unread = new Map<string, Rejection>()
  for (let n = 0; n < uuids.length; n += atOnce) {
    await Promise.all(
      uuids.slice(n, n + atOnce).map(async uuid => {
        const outcome = await backend.call('vm', uuid, 'get', {}, { reqId })
        if ('error' in outcome && outcome.error.code !== 'VmNotFound') unread.set(uuid, outcome.error)
        if ('error' in outcome) return
        const record = outcome.value as { state: string; snapshot?: { context?: VmContext } } | null
        const context = record?.snapshot?.context
        if (record && context) wanted.set(uuid, { state: record.state, context })
      }),
    )
  }
  return { wanted, unread }
}
