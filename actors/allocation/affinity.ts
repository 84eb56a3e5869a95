/** Affinity rules of a request, turned into VMs to be near to or far from (rules.md §5.27). */
import { RE2JS } from 're2js'
import type { Affinity, FleetVm, Locality } from './fleet.ts'

/** VMs of an owner that neither failed nor were destroyed. */
export interface Directory {
  ofOwner(owner: string): Iterable<FleetVm>
  get(uuid: string): FleetVm | undefined
  onServer(uuid: string): FleetVm[]
}

/** `locality` undefined: the rules match nothing and leave the request as it is. `ignored`: soft rules that cannot be worked out, and why. */
export type Meaning = { locality: Locality | undefined; ignored: string[] } | { fails: string }

/** Hard rules put soft ones aside. A hard rule that cannot be worked out fails the request, a soft one is ignored. */
export function meaningOf(affinity: readonly Affinity[], owner: string, directory: Directory): Meaning {
  const strict = affinity.some(({ isSoft }) => !isSoft)
  const near: string[] = []
  const far: string[] = []
  const ignored: string[] = []
  for (const rule of affinity) {
    if (rule.key === 'image' || (strict && rule.isSoft)) continue
    const found = matching(rule, owner, directory)
    if ('problem' in found) {
      if (strict) return { fails: found.problem }
      ignored.push(found.problem)
    } else if (found.uuids.length === 0 && rule.operator === '==') {
      if (strict) return { fails: `no VM of this owner matches ${worded(rule)}` }
    } else {
      ;(rule.operator === '==' ? near : far).push(...found.uuids)
    }
  }
  return { locality: near.length + far.length > 0 ? { strict, near, far } : undefined, ignored }
}

type Found = { uuids: string[] } | { problem: string }

function matching(rule: Affinity, owner: string, directory: Directory): Found {
  const test = tester(rule)
  if ('problem' in test) return test
  const isInstance = rule.key === 'instance' || rule.key === 'container'
  if (!isInstance) return { uuids: uuidsWhere(directory.ofOwner(owner), vm => tagged(vm, rule.key, test.fits)) }
  if (UUID.test(rule.value)) return { uuids: [rule.value] }
  if (rule.valueType === 'exact' && /^[0-9a-f]{64}$/.test(rule.value)) return byDockerId(rule, owner, directory)
  const named = uuidsWhere(directory.ofOwner(owner), vm => vm.alias !== undefined && test.fits(vm.alias))
  if (named.length > 0 || rule.valueType !== 'exact') return { uuids: named }
  const prefixed = uuidsWhere(directory.ofOwner(owner), vm => vm.docker_id?.startsWith(rule.value) ?? false)
  return prefixed.length > 1 ? { problem: `several VMs match ${worded(rule)}` } : { uuids: prefixed }
}

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i

function byDockerId(rule: Affinity, owner: string, directory: Directory): Found {
  const id = rule.value
  const uuid = [id.slice(0, 8), id.slice(8, 12), id.slice(12, 16), id.slice(16, 20), id.slice(20, 32)].join('-')
  const vm = directory.get(uuid)
  const fits = vm !== undefined && vm.owner_uuid === owner && vm.docker === true && vm.docker_id === id
  return fits ? { uuids: [uuid] } : { problem: `no container has the id of ${worded(rule)}` }
}

function tagged(vm: FleetVm, key: string, fits: (text: string) => boolean): boolean {
  const { tags } = vm
  if (!tags) return false
  return [key, `docker:label:${key}`].some(name => Object.hasOwn(tags, name) && fits(String(tags[name])))
}

/**
 * How a value is compared: as it is, with `*` for anything, or as a regular expression between slashes. In linear time whatever is asked:
 * the patterns are callers', and one that backtracks for hours would be every caller's hours. So there are no back-references and no lookaround.
 */
function tester({ valueType, value }: Affinity): { fits: (text: string) => boolean } | { problem: string } {
  if (valueType === 'exact') return { fits: text => text === value }
  if (valueType === 'glob') {
    const parts = value.split('*').map(part => RE2JS.quote(part))
    return { fits: matches(RE2JS.compile(`^(?s:${parts.join('.*')})$`)) }
  }
  if (value.length > PATTERN_MAX) return { problem: `a regular expression has more than ${PATTERN_MAX} characters` }
  try {
    return { fits: matches(RE2JS.compile(value.slice(1, -1))) }
  } catch {
    return { problem: `${value} is not a regular expression, or has back-references or lookaround` }
  }
}

const PATTERN_MAX = 256
const matches = (pattern: RE2JS) => (text: string) => pattern.test(text)

function uuidsWhere(vms: Iterable<FleetVm>, holds: (vm: FleetVm) => boolean): string[] {
  const uuids: string[] = []
  for (const vm of vms) if (holds(vm)) uuids.push(vm.uuid)
  return uuids
}

const worded = ({ key, operator, value }: Affinity) => `${key}${operator}${value}`
