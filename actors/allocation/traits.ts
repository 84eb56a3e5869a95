/** Traits: a server is used exactly by those who ask for all of its traits. */
import type { Request, Traits } from './fleet.ts'

/** The VM's own traits, else the package's; the image's on top, name by name. */
export function wantedTraits({ vm, package: pkg, image }: Request): Traits {
  return { ...(vm.traits ?? pkg?.traits), ...image.traits }
}

/** Why a server's traits do not fit; undefined when they do. Extra traits of the server exclude it too. */
export function misfit(wanted: Traits, has: Traits): string | undefined {
  const names = Object.keys(wanted)
  const found = Object.keys(has)
  const missing = names.find(name => !matches(wanted[name], Object.hasOwn(has, name) ? has[name] : undefined))
  if (missing !== undefined) return `it lacks trait ${missing} = ${JSON.stringify(wanted[missing])}`
  if (names.length !== found.length) {
    const extra = found.filter(name => !Object.hasOwn(wanted, name))
    return `it is kept for VMs that ask for its traits ${extra.join(', ')}`
  }
  return undefined
}

function matches(wanted: unknown, has: unknown): boolean {
  if (typeof wanted === 'boolean') return wanted === has
  if (typeof wanted === 'string') return has === wanted || (Array.isArray(has) && has.includes(wanted))
  if (!Array.isArray(wanted)) return false
  if (typeof has === 'string') return wanted.includes(has)
  return Array.isArray(has) && has.some(value => wanted.includes(value))
}
