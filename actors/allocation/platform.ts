/** Platform requirements: maps of version to platform stamp. Versions and stamps are compared as text, as they always were. */
import type { PlatformMap } from './fleet.ts'

/** What a server runs: `version` such as 7.0, `live` the stamp of its platform image. */
export interface Platform {
  version: string
  live: string
}

type Met = (platform: Platform) => boolean

/** At least this platform. A version above all listed ones passes; one below, or listed with a newer platform, does not. */
export function atLeast(map: PlatformMap): Met {
  const { lo, hi, listed } = bounds(map)
  if (lo === undefined || hi === undefined) return () => true
  return ({ version, live }) =>
    version > hi || (Object.hasOwn(listed, version) ? live >= listed[version]! : version > lo && version < hi)
}

/** At most this platform: the mirror image. */
export function atMost(map: PlatformMap): Met {
  const { lo, hi, listed } = bounds(map)
  if (lo === undefined || hi === undefined) return () => true
  return ({ version, live }) =>
    version < lo || (Object.hasOwn(listed, version) ? live <= listed[version]! : version > lo && version < hi)
}

/** Keys that are no versions mean nothing here. */
function bounds(map: PlatformMap) {
  const listed = Object.fromEntries(Object.entries(map).filter(([version]) => /^\d+\.\d+$/.test(version)))
  const versions = Object.keys(listed).sort()
  return { lo: versions[0], hi: versions.at(-1), listed }
}

/** A stamp such as 20210115T003355Z in ms since the epoch; NaN for anything else. */
export function stampMs(stamp: unknown): number {
  const form = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/.exec(String(stamp))
  if (!form) return Number.NaN
  const [, year, month, day, hour, minute, second] = form.map(Number)
  return Date.UTC(year!, month! - 1, day, hour, minute, second)
}
