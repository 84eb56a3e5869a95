/** Named options for libvirt's flag words; each table is one flags enum of libvirt's headers. */

export const FLAGS = {
  domainCreate: { paused: 1, autodestroy: 2, bypassCache: 4, forceBoot: 8, validate: 16, resetNvram: 32 },
  domainDefine: { validate: 1 },
  domainDestroy: { graceful: 1, removeLogs: 2 },
  domainUndefine: {
    managedSave: 1,
    snapshotsMetadata: 2,
    nvram: 4,
    keepNvram: 8,
    checkpointsMetadata: 16,
    tpm: 32,
    keepTpm: 64,
  },
  domainXml: { secure: 1, inactive: 2, updateCpu: 4, migratable: 8 },
  domainShutdown: { acpi: 1, guestAgent: 2, initctl: 4, signal: 8, paravirt: 16 },
  domainList: {
    active: 1,
    inactive: 2,
    persistent: 4,
    transient: 8,
    running: 16,
    paused: 32,
    shutoff: 64,
    other: 128,
    managedSave: 256,
    autostart: 1024,
    hasSnapshot: 4096,
  },
  /** Which statistics; none given means all that the driver has. */
  stats: {
    state: 1,
    cpuTotal: 2,
    balloon: 4,
    vcpu: 8,
    interface: 16,
    block: 32,
    perf: 64,
    iothread: 128,
    memory: 256,
    dirtyrate: 512,
    vm: 1024,
  },
  statsFilter: {
    active: 1,
    inactive: 2,
    persistent: 4,
    transient: 8,
    running: 16,
    paused: 32,
    shutoff: 64,
    other: 128,
    /** Leave out what would have to wait for a guest that hangs. */
    nowait: 2 ** 29,
    backing: 2 ** 30,
    enforce: 2 ** 31,
  },
  deviceModify: { force: 4 },
  jobStats: { completed: 1, keepCompleted: 2 },
  migrate: {
    live: 1,
    persistDestination: 8,
    undefineSource: 16,
    paused: 32,
    nonSharedDisk: 64,
    changeProtection: 256,
    unsafe: 512,
    abortOnError: 4096,
    autoConverge: 8192,
  },
  snapshotCreate: {
    redefine: 1,
    current: 2,
    noMetadata: 4,
    halt: 8,
    diskOnly: 16,
    reuseExternal: 32,
    quiesce: 64,
    atomic: 128,
    live: 256,
    validate: 512,
  },
  snapshotList: { roots: 1, metadata: 2, leaves: 4, noLeaves: 8, inactive: 32, active: 64, internal: 256 },
  snapshotRevert: { running: 1, paused: 2, force: 4, resetNvram: 8 },
  snapshotDelete: { children: 1, metadataOnly: 2, childrenOnly: 4 },
  networkDefine: { validate: 1 },
  networkXml: { inactive: 1 },
  networkList: { inactive: 1, active: 2, persistent: 4, transient: 8, autostart: 16, noAutostart: 32 },
  poolList: { inactive: 1, active: 2, persistent: 4, transient: 8, autostart: 16, noAutostart: 32 },
  poolCreate: { build: 1, buildOverwrite: 2, buildNoOverwrite: 4 },
  poolBuild: { repair: 1, resize: 2, noOverwrite: 4, overwrite: 8 },
  poolXml: { inactive: 1 },
  volumeCreate: { preallocateMetadata: 1, reflink: 2, validate: 4 },
  volumeDelete: { zeroed: 1, withSnapshots: 2 },
  volumeResize: { allocate: 1, delta: 2, shrink: 4 },
} as const

/** The options of one table, each off unless true. */
export type Flags<Table extends keyof typeof FLAGS> = { [Name in keyof (typeof FLAGS)[Table]]?: boolean }

/** The flag word for `options`. */
export function flagWord<Table extends keyof typeof FLAGS>(table: Table, options: Flags<Table> = {}): number {
  const bits: Record<string, number> = FLAGS[table]
  let word = 0
  for (const [name, on] of Object.entries(options)) {
    const bit = bits[name]
    if (bit === undefined) throw new TypeError(`${table} has no flag ${name}`)
    if (on) word += bit
  }
  return word
}

/** What a change applies to: the running domain, its stored definition, both, or whichever it is now. */
export type Affect = 'current' | 'live' | 'config' | 'both'

const affectBits: Record<Affect, number> = { current: 0, live: 1, config: 2, both: 3 }

export function affectWord(affect: Affect = 'current'): number {
  return affectBits[affect]
}
