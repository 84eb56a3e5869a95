/** Placement as it is asked for and answered: the parts of POST /allocate's body that a decision reads, and the allocator's replies. */
import * as v from 'valibot'

/** What is falsy counts as not given. */
const given = <S extends v.GenericSchema>(schema: S) =>
  v.optional(
    v.pipe(
      v.unknown(),
      v.transform(value => value || undefined),
      v.optional(schema),
    ),
  )

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
const object = v.custom<Record<string, unknown>>(isObject, 'value is not an object')
const number = v.number('value was not a number')
const text = v.string('value was not a string')
const lowerUuid = v.pipe(text, v.regex(/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/, 'value was not a UUID'))
const numeric = v.pipe(
  v.union([v.number(), v.pipe(v.string(), v.regex(/^\s*-?\d+(\.\d+)?\s*$/))], 'value was not a number'),
  v.transform(Number),
)

/** An object, or text that holds one as JSON. */
const objectOrJson = v.pipe(
  v.union([object, v.string()], 'value is not an object'),
  v.transform(value => (typeof value === 'string' ? parsed(value) : value)),
  object,
)

function parsed(json: string): unknown {
  try {
    return JSON.parse(json)
  } catch {
    return undefined
  }
}

const STAMP = /^20\d{2}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])T([01]\d|2[0-3])[0-5]\d[0-5]\dZ$/
/** Version to platform stamp, such as 20210115T003355Z. Keys that are no versions are kept, and mean nothing. */
const platforms = v.pipe(
  v.custom<Record<string, string>>(
    value => isObject(value) && Object.values(value).every(stamp => STAMP.test(String(stamp))),
    'must map versions to platform stamps',
  ),
)

export const AllocationImage = v.looseObject({
  type: v.optional(text),
  image_size: given(number),
  files: given(v.array(v.looseObject({ size: v.optional(number) }), 'value was not an array')),
  traits: given(object),
  requirements: given(
    v.looseObject({
      min_platform: v.optional(platforms),
      max_platform: v.optional(platforms),
      min_ram: v.optional(number),
      max_ram: v.optional(number),
    }),
  ),
})

export const SPREAD_WORDS = ['min-ram', 'max-ram', 'random', 'min-owner'] as const

export const AllocationPackage = v.looseObject({
  max_physical_memory: given(number),
  cpu_cap: given(number),
  quota: given(number),
  traits: given(objectOrJson),
  min_platform: given(v.pipe(objectOrJson, platforms)),
  max_platform: given(v.pipe(objectOrJson, platforms)),
  alloc_server_spread: given(v.picklist(SPREAD_WORDS, `must be one of ${SPREAD_WORDS.join(', ')}`)),
  overprovision_cpu: given(numeric),
  overprovision_memory: given(numeric),
  overprovision_storage: given(numeric),
  overprovision_network: given(numeric),
  overprovision_io: given(numeric),
})

const near = given(v.union([lowerUuid, v.array(lowerUuid)], 'must be a UUID or a list of UUIDs'))

/** RAM in MiB, quota in GiB, cpu_cap in percent of a core. What names no brand is `kvm`, as in VmCreate. */
export const AllocationVm = v.looseObject({
  vm_uuid: v.optional(lowerUuid),
  owner_uuid: lowerUuid,
  ram: number,
  brand: v.optional(text, 'kvm'),
  vcpus: v.optional(number),
  quota: given(number),
  cpu_cap: given(number),
  traits: given(object),
  tags: given(object),
  nic_tags: given(v.array(text, 'value was not an array')),
  affinity: v.optional(
    v.array(
      v.looseObject({
        key: text,
        operator: v.picklist(['==', '!='], 'operator must be == or !='),
        value: v.pipe(text, v.maxLength(1024)),
        valueType: v.picklist(['exact', 'glob', 're'], 'valueType must be exact, glob or re'),
        isSoft: v.boolean('isSoft was not a boolean'),
      }),
      'value was not an array',
    ),
  ),
  locality: v.optional(v.looseObject({ near, far: near, strict: v.optional(v.boolean('strict was not a boolean')) })),
  internal_metadata: given(object),
})

/**
 * A question to the allocator. `servers`: only these; `claim_ms`: hold the place for the VM that long; `steps`: tell every server of every
 * step, or no step.
 */
export const AllocationQuestion = v.object({
  vm: AllocationVm,
  package: v.optional(AllocationPackage),
  image: v.optional(AllocationImage),
  nic_tags: v.optional(v.array(v.string())),
  nic_tag_requirements: v.optional(v.array(v.array(v.string()))),
  servers: v.optional(v.array(v.string())),
  claim_ms: v.optional(v.pipe(v.number(), v.minValue(1000), v.maxValue(600_000))),
  steps: v.optional(v.picklist(['full', 'none'])),
})
export type AllocationQuestion = v.InferInput<typeof AllocationQuestion>

/** Who owns what nobody owns. */
export const NOBODY = '00000000-0000-0000-0000-000000000000'
/** Most servers that a step lists, unless all are asked for. */
export const REMAINING_MAX = 50
/** How long a claim holds, and how long a decision is kept, ms. */
export const CLAIM_MS = 60_000
export const DECISION_KEPT_MS = 10 * 60_000

/** One step: the servers left after it, why others are not, and what it says of all (`*`) or of itself (`skip`). */
export interface ToldStep {
  step: string
  rule: string
  /** Absent: the same as after the step before, which most steps leave as it was. */
  remaining?: string[]
  remaining_count: number
  reasons?: Record<string, string>
}

/** What a decision tells, whether it found a server or not. Capacity in MiB and percent of a core. */
export interface ToldDecision {
  id: string
  server_uuid: string | null
  score: number | null
  winners: number
  capacity?: { cpu: number; ram: number; disk: number }
  overprovision_ratios?: Record<string, number>
  steps: ToldStep[]
  /** With steps `full`: servers in the order of their last step, and the step at which each fell out (255: never), from which lists are made. */
  full?: { servers: string[]; out_at: number[] }
  claim?: { id: string; expires_at: string }
}
