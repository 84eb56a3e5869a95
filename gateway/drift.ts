/**
 * A VM as its record wants it against the VM as its node has it, part by part (the names are those of actors/contract/found.ts). Pure: what
 * is seen when, and by whom, is drift-survey.ts; what becomes of a difference is drift-settle.ts.
 */
import { type FoundVm, partsOf, placeOf, readable, targetOf } from '../actors/contract/found.ts'
import type { VmContext, VmVerb } from '../actors/contract/vm.ts'

export interface WantedVm {
  /** State of its machine. */
  state: string
  context: VmContext
}

export interface Difference {
  field: string
  /** Null: there should be none, or there is none. */
  wanted: unknown
  found: unknown
  /** The operation in flight that explains it. */
  operation?: { verb: VmVerb; task_id: string }
}

/** In the order of their names, states first. */
export function differences(vm: WantedVm, found: FoundVm): Difference[] {
  const ports = found.ports.map(({ mac, as }) => [`nics.${mac.toLowerCase()}.port`, as])
  return compared(vm, { ...wantedParts(vm), ...Object.fromEntries(ports) }, partsOf(found))
}

/** The same with what a report has told of a VM: only the parts that it tells. */
export function reportedDifferences(vm: WantedVm, reported: Record<string, unknown>): Difference[] {
  const wanted = wantedParts(vm)
  return compared(vm, Object.fromEntries(Object.keys(reported).map(name => [name, wanted[name]])), reported)
}

/** Parts of a VM's record. A field that an old record does not have is wanted by nobody. */
export function wantedParts(vm: WantedVm): Record<string, unknown> {
  const { name, ram, vcpus, autoboot, alias, owner_uuid, cpu_cap, quota, tags, disks, nics } = vm.context
  const state = wantedState(vm)
  return {
    ...(state === undefined ? {} : { state }),
    ...(autoboot === undefined ? {} : { autoboot }),
    ...{ name, ram, vcpus, owner_uuid, cpu_cap, quota },
    alias: alias || null,
    tags: tags ?? {},
    ...Object.fromEntries(disks.map(({ slot, ...disk }, n) => [`disks.${targetOf(slot ?? n)}`, disk])),
    ...Object.fromEntries(nics.map(nic => [`nics.${nic.mac.toLowerCase()}`, placeOf(nic)])),
  }
}

/** What the operation in flight may change: until it has ended, nobody can say that this is not as wanted. */
export function explanation({ operation }: VmContext, field: string): Difference['operation'] {
  if (!operation || !changes[operation.verb](field)) return undefined
  return { verb: operation.verb, task_id: operation.task_id }
}

/** Does the operation in flight make or remove the VM itself. */
export function isComingOrGoing({ operation }: VmContext): boolean {
  return operation !== null && ['create', 'destroy', 'migrate'].includes(operation.verb)
}

const all = () => true
const state = (field: string) => field === 'state'
const changes: Record<VmVerb, (field: string) => boolean> = {
  create: all,
  destroy: all,
  migrate: all,
  reprovision: all,
  rollback_snapshot: all,
  start: state,
  stop: state,
  reboot: state,
  kill: state,
  update: field => field !== 'state' && field !== 'name',
  create_snapshot: state,
  delete_snapshot: () => false,
  create_image: field => field === 'state' || field.startsWith('disks.'),
}

/** While an operation is in flight, what was before it; undefined where nothing is wanted. */
function wantedState({ state: now, context }: WantedVm): string | undefined {
  const word = context.operation?.verb === 'create' ? 'running' : context.operation ? context.before : now
  return word === 'running' || word === 'stopped' || word === 'failed' ? word : undefined
}

function compared(vm: WantedVm, wanted: Record<string, unknown>, found: Record<string, unknown>): Difference[] {
  // What a record does not say is not missed; a disk or NIC is one that nobody wants.
  const isDevice = (name: string) => /^(disks|nics)\./.test(name)
  const names = new Set([...Object.keys(wanted), ...Object.keys(found).filter(isDevice)])
  return [...names]
    .filter(name => readable(wanted[name] ?? null) !== readable(found[name] ?? null))
    .sort((a, b) => rank(a) - rank(b) || (a < b ? -1 : 1))
    .map(field => {
      const operation = explanation(vm.context, field)
      return { field, wanted: wanted[field] ?? null, found: found[field] ?? null, ...(operation ? { operation } : {}) }
    })
}

const rank = (field: string) => (field === 'state' ? 0 : 1)
