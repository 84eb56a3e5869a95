/**
 * Placement over REST (cnapi-behaviour Appendix A): which server a new VM should go to, what servers have left, and why. The choice is the
 * allocator's; invalid parameters are 500 here, as clients depend on it.
 */
import * as v from 'valibot'
import {
  AllocationImage,
  AllocationPackage,
  type AllocationQuestion,
  AllocationVm,
  CLAIM_MS,
  type ToldDecision,
  type ToldStep,
} from '../../actors/contract/allocation.ts'
import { type FieldError, rejection } from '../../actors/contract/errors.ts'
import type { Sysinfo } from '../../actors/contract/server.ts'
import type { Backend } from '../backend.ts'
import { jsonBytes } from '../body.ts'
import { isUuid } from '../gates.ts'
import { chosen, questionOf } from '../placement.ts'
import { type Answer, type AnyRow, row } from '../row.ts'
import { booleanWord, object, uuid } from '../rules.ts'
import { shownServer } from '../shown-server.ts'
import { SPEC_MAX_BYTES, specTooLarge, vmPayload, vmSpecOf } from '../vm-spec.ts'

const list = v.array(v.unknown(), 'value was not an array')
const Steps = v.array(v.looseObject({ step: v.string(), remaining: v.array(v.string()), remaining_count: v.number() }))
const Capacity = v.object({ cpu: v.number(), ram: v.number(), disk: v.number() })
/** A request may name every server of a fleet. */
const questionMaxBytes = 512 * 1024

export const allocationRows: AnyRow[] = [
  row({
    method: 'POST',
    path: '/allocate',
    name: 'SelectServer',
    summary:
      'The server that a VM should go to, and the steps that led there; a refusal has the steps too. A step lists 50 servers, `steps=full` lists all, `steps=none` tells no steps. `claim` holds the place for a minute: until VmCreate with the same uuid, or until it lapses.',
    gate: 'GM',
    strict: false,
    params: {
      vm: object,
      image: object,
      nic_tags: list,
      package: v.nullish(object),
      nic_tag_requirements: v.nullish(list),
      servers: v.nullish(list),
      steps: v.optional(v.picklist(['full', 'none'], 'must be full or none')),
      claim: v.optional(booleanWord),
    },
    check: params => firstWrong(params as Body),
    invalidStatus: 500,
    success: {
      status: 200,
      description: 'The server with its score and what it has left, steps, and the claim if one was asked for',
      body: v.looseObject({ server: v.looseObject({ uuid: v.string(), score: v.number() }), steps: Steps }),
    },
    errors: ['NoAllocatableServersError', 'ClaimOutdated'],
    maxBodyBytes: questionMaxBytes,
    handle: async ({ params }, backend) => {
      const { vm, package: pkg, image, nic_tags, nic_tag_requirements, servers, steps, claim } = params as Body
      const question = {
        ...{ vm, image, nic_tags },
        ...(pkg ? { package: pkg } : {}),
        ...(nic_tag_requirements ? { nic_tag_requirements } : {}),
        ...(servers ? { servers } : {}),
        ...(steps ? { steps } : {}),
        ...(claim ? { claim_ms: CLAIM_MS } : {}),
      } as AllocationQuestion
      const outcome = await backend.allocate(question)
      if ('error' in outcome) {
        const { error, decision } = outcome
        return { error, ...(decision ? { extra: { steps: stepsOf(decision), allocation_id: decision.id } } : {}) }
      }
      const { value } = outcome
      const body = { server: await serverOf(value, backend), steps: stepsOf(value), imgapiPeers: [] }
      return { status: 200, body: { ...body, allocation_id: value.id, ...(value.claim ? { claim: value.claim } : {}) } }
    },
  }),
  row({
    method: 'POST',
    path: '/capacity',
    name: 'ServerCapacity',
    summary:
      'What servers have left for VMs: cpu in percent of a core, ram and disk in MiB; `errors` says why others tell nothing.',
    gate: 'GM',
    strict: false,
    params: { servers: v.nullish(list) },
    check: ({ servers }) => wrongServers(servers),
    invalidStatus: 500,
    success: {
      status: 200,
      description: 'Capacities by server',
      body: v.looseObject({ capacities: v.record(v.string(), Capacity), errors: v.record(v.string(), v.string()) }),
    },
    errors: [],
    maxBodyBytes: questionMaxBytes,
    handle: async ({ params }, backend) => {
      const outcome = await backend.capacity((params.servers ?? undefined) as string[] | undefined)
      if ('error' in outcome) return outcome
      const { capacities, errors } = outcome.value
      return { status: 200, body: { capacities, errors } }
    },
  }),
  row({
    method: 'GET',
    path: '/allocations/:id',
    name: 'AllocationGet',
    summary:
      'Why a decision of the last ten minutes chose its server; with `server`, why not that one, and what would have admitted it.',
    gate: 'G0',
    strict: true,
    params: { id: uuid, server: v.optional(uuid) },
    success: {
      status: 200,
      description: 'The decision with its question, or every rule that refuses the server and the change it would take',
      body: v.looseObject({ id: v.string(), decided_at: v.string(), input_digest: v.string() }),
    },
    errors: ['ResourceNotFound'],
    handle: async ({ params }, backend) => {
      const outcome = await backend.decision(params.id, params.server)
      if ('error' in outcome) return outcome
      const { value } = outcome
      return { status: 200, body: isWhole(value) ? { ...value, steps: stepsOf(value) } : value }
    },
  }),
  row({
    method: 'GET',
    path: '/fleet',
    name: 'FleetExport',
    summary:
      'Servers, VMs, open provision tickets and settings as one document, for `npm run allocate` to try requests on.',
    gate: 'G0',
    strict: true,
    params: {},
    success: {
      status: 200,
      description: 'The fleet as placement sees it; add `requests` to decide',
      body: v.looseObject({ format: v.string(), servers: v.array(v.looseObject({ uuid: v.string() })) }),
    },
    errors: [],
    handle: async (_, backend) => {
      const first = await backend.fleet(0)
      if ('error' in first) return first
      const { next, ...document } = first.value
      for (let offset = next; offset !== undefined; ) {
        const page = await backend.fleet(offset)
        if ('error' in page) return page
        document.servers.push(...page.value.servers)
        offset = page.value.next
      }
      return { status: 200, body: document }
    },
  }),
  row({
    method: 'POST',
    path: '/vms',
    name: 'VmPlace',
    summary: 'Makes a VM from VmCreate\u2019s payload on the server that placement chooses.',
    gate: 'G0',
    strict: false,
    params: vmPayload,
    success: {
      status: 200,
      description: 'The task, and the server chosen',
      body: v.object({ id: v.string(), vm_uuid: v.string(), server_uuid: v.string() }),
    },
    errors: ['VmExists', 'PayloadTooLarge', 'NoAllocatableServersError', 'ClaimOutdated'],
    handle: async ({ params, ids, key, reqId }, backend): Promise<Answer> => {
      const mapped = vmSpecOf(params, ids)
      if ('errors' in mapped) return { error: rejection('InvalidParameters', undefined, mapped.errors) }
      const { spec } = mapped
      if (jsonBytes(spec) > SPEC_MAX_BYTES) return { error: specTooLarge }
      // A repeat goes where the first one went: its actor knows both. One that is gone, or never came to be, is placed anew.
      const known = await backend.vms.load(spec.uuid)
      const before = known?.present || key ? known : undefined
      const outcome = before ? undefined : await backend.allocate(questionOf(spec))
      if (outcome && 'error' in outcome) return { error: outcome.error }
      const server_uuid = before?.server_uuid ?? chosen(outcome!.value)
      const order = { server_uuid, task_id: ids.task(), ...mapped }
      const made = await backend.call('vm', spec.uuid, 'create', order, { key, reqId })
      return 'error' in made ? made : { status: 200, body: { ...made.value, server_uuid } }
    },
  }),
]

interface Body {
  vm: Record<string, unknown>
  image: Record<string, unknown>
  nic_tags: unknown[]
  package?: Record<string, unknown> | null
  nic_tag_requirements?: unknown[] | null
  servers?: unknown[] | null
  steps?: 'full' | 'none'
  claim?: boolean
}

/** The first field that is wrong, in the order that clients know: image, package, vm, servers, nic_tag_requirements, nic_tags. */
function firstWrong({ vm, image, nic_tags, package: pkg, nic_tag_requirements: wanted, servers }: Body): FieldError[] {
  const checks: (() => FieldError[])[] = [
    () => wrong('image', AllocationImage, image),
    () => (pkg ? wrong('package', AllocationPackage, pkg) : []),
    () => wrong('vm', AllocationVm, vm),
    () => wrongRam(vm, image),
    () => wrongServers(servers),
    () => ((wanted?.every(anyOf => isNames(anyOf)) ?? true) ? [] : invalid('nic_tag_requirements', 'invalid nic_tag')),
    () => (nic_tags.every(tag => typeof tag === 'string') ? [] : invalid('nic_tags', 'invalid nic_tag')),
  ]
  for (const check of checks) {
    const errors = check()
    if (errors.length > 0) return errors
  }
  return []
}

const invalid = (field: string, message: string): FieldError[] => [{ field, code: 'Invalid', message }]
const isNames = (value: unknown) => Array.isArray(value) && value.every(tag => typeof tag === 'string' && tag !== '')

function wrong(field: string, schema: v.GenericSchema, value: unknown): FieldError[] {
  const read = v.safeParse(schema, value)
  if (read.success) return []
  const issue = read.issues[0]
  return invalid(field, `${v.getDotPath(issue) ?? field}: ${issue.message}`)
}

function wrongServers(servers: unknown[] | null | undefined): FieldError[] {
  return (servers?.every(isUuid) ?? true) ? [] : invalid('servers', 'invalid server UUID')
}

/** An image may bound the RAM of its VMs, MiB. */
function wrongRam({ ram }: Record<string, unknown>, { requirements }: Record<string, unknown>): FieldError[] {
  const { min_ram: least, max_ram: most } = (requirements || {}) as { min_ram?: number; max_ram?: number }
  const mib = Number(ram)
  if (least !== undefined && mib < least - RAM_TOLERANCE)
    return invalid('vm', `ram ${mib} is below the image's min_ram ${least}`)
  if (most !== undefined && mib > most + RAM_TOLERANCE)
    return invalid('vm', `ram ${mib} is above the image's max_ram ${most}`)
  return []
}
const RAM_TOLERANCE = 0.01

/** All of a decision, rather than what it says of one server. */
const isWhole = (value: object): value is ToldDecision => 'steps' in value

/** Steps with the lists that the allocator has told but once: as after the step before, or at which step each server fell out. */
function stepsOf({ steps, full }: ToldDecision): (ToldStep & { remaining: string[] })[] {
  let last: string[] = []
  return steps.map((step, at) => {
    if (full) last = step.remaining_count === 0 ? [] : full.servers.filter((_, place) => full.out_at[place]! > at)
    else last = step.remaining ?? last
    const { step: label, rule, remaining_count, reasons } = step
    return { step: label, rule, remaining: last, remaining_count, ...(reasons ? { reasons } : {}) }
  })
}

/** The server as ServerGet shows it, without its VMs, with what the decision says of it. */
async function serverOf(value: ToldDecision, backend: Backend): Promise<Record<string, unknown>> {
  const uuid = chosen(value)
  await Promise.all([backend.servers.barrier(), backend.inventory.barrier()])
  const server = backend.servers.get(uuid) ?? (await backend.servers.load(uuid))
  const shown: Record<string, unknown> = server ? shownServer(server, shownExtras, backend) : { uuid }
  const { cpu, ram, disk } = value.capacity ?? { cpu: 0, ram: 0, disk: 0 }
  return {
    ...shown,
    sysinfo: withInterfaces(shown['sysinfo'] as Sysinfo | undefined),
    score: value.score,
    overprovision_ratios: value.overprovision_ratios,
    ...{ unreserved_cpu: cpu, unreserved_ram: ram, unreserved_disk: disk },
  }
}
const shownExtras: ReadonlySet<string> = new Set(['agents', 'memory', 'disk', 'sysinfo'])

/** Each NIC tells the name of its interface, as clients of /allocate find it. */
function withInterfaces(sysinfo: Sysinfo | undefined): Sysinfo | undefined {
  const nics = sysinfo?.['Network Interfaces']
  if (!nics) return sysinfo
  const named = Object.entries(nics).map(([name, nic]) => [name, { ...nic, interface: name }])
  return { ...sysinfo, 'Network Interfaces': Object.fromEntries(named) }
}
