/** Nic tags: which a server carries, whether their links are up, and whether that meets a request. */
import { isObject } from './validity.ts'

/** Tag to the link that carries it; `up` when some carrier is up. */
export type NicTags = Record<string, { up: boolean; nic: string; link: string }>

/** The tags of a sysinfo; undefined when it lists no interfaces at all. */
export function nicTagsOf(sysinfo: Record<string, unknown>): NicTags | undefined {
  const physical = sysinfo['Network Interfaces']
  if (!isObject(physical)) return undefined
  const tags: NicTags = {}
  const carry = (nic: string, fields: unknown, list: string) => {
    if (!isObject(fields) || !Array.isArray(fields[list])) return
    const link = String(fields['Link Status'])
    // The kernel knows no link state of an Open vSwitch bridge's own port: `unknown` is its normal one.
    const up = link === 'up' || (link === 'unknown' && typeof fields['Bridge'] === 'string')
    for (const tag of fields[list] as unknown[]) {
      if (up || !Object.hasOwn(tags, String(tag))) tags[String(tag)] = { up, nic, link }
    }
  }
  for (const [nic, fields] of Object.entries(physical)) carry(nic, fields, 'NIC Names')
  const virtual = sysinfo['Virtual Network Interfaces']
  if (isObject(virtual)) for (const [nic, fields] of Object.entries(virtual)) carry(nic, fields, 'Overlay Nic Tags')
  return tags
}

/** Does some tag of each requirement have a link that is up. */
export function meets(tags: NicTags, requirements: readonly (readonly string[])[]): boolean {
  for (const anyOf of requirements) {
    let met = false
    for (const tag of anyOf) if (Object.hasOwn(tags, tag) && tags[tag]!.up) met = true
    if (!met) return false
  }
  return true
}

/** What is missing for one requirement (any of these tags); undefined when it is met. */
export function lacking(tags: NicTags, anyOf: readonly string[]): string | undefined {
  const known = anyOf.filter(tag => Object.hasOwn(tags, tag))
  if (known.some(tag => tags[tag]?.up)) return undefined
  const [offline] = known
  if (offline !== undefined) {
    const { nic, link } = tags[offline]!
    return `NIC ${nic} has NIC tag "${offline}", but its link is ${link}`
  }
  return anyOf.length === 1 ? `it lacks NIC tag "${anyOf[0]}"` : `it lacks all of the NIC tags ${JSON.stringify(anyOf)}`
}
