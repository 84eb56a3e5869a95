/**
 * See `LiveMigrations`: libvirt's migration in five phases, of which each agent asks its own libvirtd for its own, so that no node needs
 * another's libvirtd. A phase belongs to the connection that began it: with the agent's death libvirt itself destroys what waits on the
 * target, and lets go of the guest on the source. The last phase (confirm) is left out: it would stop what `removeVm` stops.
 */
import {
  type Domain,
  isLibvirtError,
  type Hypervisor as Libvirt,
  LibvirtError,
  type ParameterValue,
} from 'node-libvirt'
import { pause } from '../abort.ts'
import { HypervisorError } from '../hypervisor.ts'
import type { LiveMigrations } from '../live-migrations.ts'
import { arrivingDefinition, bootedNext } from './arriving-definition.ts'
import { lookup } from './definition.ts'
import { type ReadDomain, readDomain } from './xml-reading.ts'

export interface LiveMigrationParts {
  /** Does it on the domain of this VM, which must exist. */
  act<T>(doing: string, uuid: string, action: (domain: Domain, libvirt: Libvirt) => Promise<T>): Promise<T>
  /** A connection for this migration alone. */
  connect(): Promise<Libvirt>
  /** libvirt's name of the driver. */
  driver(): string
  /** InsufficientMemory where a VM of so many MiB would not fit. */
  needMemory(uuid: string, mib: number): Promise<void>
  /** Fails in Muster's words. */
  failure(doing: string, error: unknown): HypervisorError
  /** How long a guest may stand still for the last of its memory, ms. */
  standstillMs?: number
}

export interface LibvirtLiveMigrations {
  live: LiveMigrations
  /** Lets go of what a migration of this VM, or any, has open here. */
  drop(uuid?: string): Promise<void>
}

/** Without a connection while that is made. */
interface Opened {
  libvirt?: Libvirt
}

const flags = { live: true, nonSharedDisk: true, changeProtection: true, abortOnError: true, autoConverge: true }
const loopback = '127.0.0.1'
/** Copying may take as long as its task. */
const performDeadline = { deadlineMs: 12 * 3600_000 }
const progressEveryMs = 1_000
/** How long libvirt may take to end a phase whose agent has gone, and how often it is looked at, ms. */
const settleMs = 60_000
const lookEveryMs = 250
/** A job that has not ended by itself after so long is aborted, ms. */
const patienceMs = 5_000

export function libvirtLiveMigrations(parts: LiveMigrationParts): LibvirtLiveMigrations {
  const { act, connect, driver, needMemory, failure, standstillMs = 20_000 } = parts
  const open = new Map<string, Opened>()

  const drop = async (uuid?: string) => {
    const wanted = uuid === undefined ? [...open.keys()] : [uuid.toLowerCase()]
    const closing = wanted.map(one => open.get(one))
    for (const one of wanted) open.delete(one)
    await Promise.all(closing.map(one => one?.libvirt?.close()))
  }
  /** The connection that this VM's migration lives on, where it still does. */
  const opened = (uuid: string) => {
    const libvirt = open.get(uuid.toLowerCase())?.libvirt
    return libvirt?.connected ? libvirt : undefined
  }
  /** On a new connection, which is kept when this succeeds. */
  async function opening<T>(doing: string, uuid: string, phase: (domain: Domain, libvirt: Libvirt) => Promise<T>) {
    if (driver() !== 'QEMU') throw unsupported(`the VM ${uuid} is no guest of QEMU`)
    const mine: Opened = {}
    const before = open.get(uuid.toLowerCase())
    open.set(uuid.toLowerCase(), mine)
    try {
      await before?.libvirt?.close()
      const libvirt = await connect()
      mine.libvirt = libvirt
      // Dropped while it was made: nobody would close it any more.
      if (open.get(uuid.toLowerCase()) !== mine) {
        await libvirt.close()
        throw interrupted(`the migration of VM ${uuid} was taken back`)
      }
      const domain = await lookup(libvirt, uuid)
      if (!domain) throw new HypervisorError('VmNotFound', `there is no VM ${uuid}`)
      return await phase(domain, libvirt)
    } catch (error) {
      if (open.get(uuid.toLowerCase()) === mine) await drop(uuid)
      throw refusal(doing, error)
    }
  }
  const refusal = (doing: string, error: unknown) => {
    const { code, message } = failure(doing, error)
    // libvirt says in words what a guest has that cannot be moved, under codes that say less.
    const isOurs = !(error instanceof LibvirtError) || code !== 'HypervisorError'
    return new HypervisorError(isOurs ? code : 'LiveMigrationNotSupported', message, { cause: error })
  }

  const live: LiveMigrations = {
    beginLive: uuid =>
      opening(`begin to migrate VM ${uuid}`, uuid, async domain => {
        const { state, reason } = await domain.getState()
        if (isPausedByOthers({ state, reason }))
          throw unsupported(`the VM ${uuid} is paused (${reason}): resume it first`)
        if (state === 'paused') throw interrupted(`the VM ${uuid} is paused`)
        if (!(await domain.isActive())) throw new HypervisorError('VmNotRunning', `the VM ${uuid} is not running`)
        needNothingPending(uuid, readDomain(await domain.getXml()), readDomain(await domain.getXml({ inactive: true })))
        const { xml, cookie } = await domain.beginMigration(flags)
        return { definition: xml, cookie: toText(cookie) }
      }),
    prepareLive: (uuid, { definition, cookie }) =>
      opening(`make room for VM ${uuid}`, uuid, async (domain, libvirt) => {
        const stored = await domain.getXml({ inactive: true, secure: true })
        const { name, metadata } = readDomain(stored)
        if (metadata?.complete !== false)
          throw new HypervisorError('VmBusy', `the VM ${uuid} does not wait for anything`)
        await needMemory(uuid, readDomain(definition).memoryMib)
        const arriving = arrivingDefinition(definition, stored)
        await libvirt.defineDomain(bootedNext(arriving, stored))
        const wanted = {
          name,
          xml: arriving,
          uri: `tcp://${loopback}`,
          listenAddress: loopback,
        }
        const prepared = await libvirt.prepareMigration(wanted, toBytes(cookie), flags)
        const told = toText(prepared.cookie)
        return {
          cookie: told,
          ports: { memory: portIn(/:(\d+)$/, prepared.uri), disks: portIn(nbdPort, textIn(told)) },
        }
      }),
    performLive: async (uuid, { cookie, ports }, { signal, progress }) => {
      const libvirt = opened(uuid)
      if (!libvirt || !ports) throw interrupted(`nothing was begun with VM ${uuid}`)
      let watch: ReturnType<typeof watching> | undefined
      try {
        const domain = await lookup(libvirt, uuid)
        if (!domain) throw new HypervisorError('VmNotFound', `there is no VM ${uuid}`)
        watch = watching(domain, { signal, progress, standstillMs })
        const to = { uri: `tcp://${loopback}:${ports.memory}`, disksUri: `tcp://${loopback}:${ports.disks}` }
        const copied = domain.performMigration(to, toBytes(cookie), flags, performDeadline)
        return toText(await Promise.race([copied, watch.stuck]))
      } catch (error) {
        const { code, message } = failure(`migrate VM ${uuid}`, error)
        // Not taken up again when libvirt is back: the target's room is for this try alone.
        const isOver = code === 'HypervisorError' || code === 'HypervisorUnavailable'
        throw new HypervisorError(isOver ? 'MigrationInterrupted' : code, message, { cause: error })
      } finally {
        watch?.end()
      }
    },
    finishLive: async (uuid, cookie) => {
      const libvirt = opened(uuid)
      if (libvirt) {
        try {
          const domain = await lookup(libvirt, uuid)
          if (!domain) throw new HypervisorError('VmNotFound', `there is no VM ${uuid}`)
          if ((await domain.getState()).state !== 'running') {
            await libvirt.finishMigration(domain.name, toBytes(cookie), flags)
          }
        } catch (error) {
          throw failure(`let VM ${uuid} go on`, error)
        }
      }
      await drop(uuid)
      return act('wait for', uuid, async domain => {
        if (!libvirt) await arrived(domain)
        return downtimeOf(domain)
      })
    },
    recallLive: async uuid => {
      await drop(uuid)
      await act('recall', uuid, domain => recalled(domain))
    },
  }
  return { live, drop }
}

/** A finish whose agent died is ended by libvirt all the same: the guest runs then, or is gone. */
async function arrived(domain: Domain): Promise<void> {
  await settled(`VM ${domain.uuid}`, async () => {
    const { state } = await domain.getState()
    if (state === 'running') return true
    if (state === 'paused') return false
    throw interrupted(`VM ${domain.uuid} has not arrived`)
  })
}

/** As libvirt remembers it, with the clocks of both nodes taken into account. */
async function downtimeOf(domain: Domain): Promise<{ downtime_ms?: number }> {
  const { stats } = await domain
    .getJobStats({ completed: true })
    .catch(() => ({ stats: {} as Record<string, unknown> }))
  const ms = Number(stats['downtime'])
  return Number.isFinite(ms) ? { downtime_ms: ms } : {}
}

/** Only what a migration did: a guest that somebody paused stays so, and somebody's backup or dump of it goes on. */
async function recalled(domain: Domain): Promise<void> {
  const began = Date.now()
  let isAborted = false
  await settled(`the migration of VM ${domain.uuid}`, async () => {
    const isLeaving = (await jobOf(domain)) === operations.migrationOut
    if (isLeaving && !isAborted && Date.now() - began > patienceMs) {
      isAborted = true
      await domain.abortJob().catch(() => {})
    }
    if (isLeaving) return false
    const now = await domain.getState()
    if (now.state !== 'paused' || isPausedByOthers(now)) return true
    await domain.resume()
    return false
  })
}

const isPausedByOthers = ({ state, reason }: Awaited<ReturnType<Domain['getState']>>) =>
  state === 'paused' && (reason === 'user' || reason === 'ioerror')

async function settled(what: string, look: () => Promise<boolean>): Promise<void> {
  const end = Date.now() + settleMs
  while (!(await look())) {
    if (Date.now() > end) throw new HypervisorError('HypervisorError', `libvirt has not ended ${what}`)
    await pause(lookEveryMs, new AbortController().signal)
  }
}

/** libvirt's number of what a job does. */
const operations = { none: -1, unknown: 0, migrationOut: 5 }

async function jobOf(domain: Domain): Promise<number> {
  try {
    const { type, stats } = await domain.getJobStats()
    return type === 0 ? operations.none : Number(stats['operation'] ?? operations.unknown)
  } catch (error) {
    if (isLibvirtError(error, 'OPERATION_INVALID')) return operations.none
    throw error
  }
}

/** Tells how far it is, about once a second. `stuck` rejects when the guest stands still for too long: it goes on when its copy ends. */
function watching(
  domain: Domain,
  how: { signal: AbortSignal; progress: (percent: number) => void; standstillMs: number },
) {
  const { signal, progress, standstillMs } = how
  let isOver = false
  let stoodStillAt: number | undefined
  let isAsking = false
  // At the end QEMU answers nothing until the last of the memory is gone: nobody waits for this.
  const tell = async () => {
    if (isAsking) return
    isAsking = true
    const job = await domain.getJobStats().catch(() => undefined)
    isAsking = false
    if (job && !isOver) progress(percentOf(job.stats))
  }
  const look = async () => {
    for (;;) {
      await pause(progressEveryMs, signal).catch(() => {})
      if (isOver || signal.aborted) return
      void tell()
      const now = await domain.getState().catch(() => undefined)
      if (now) stoodStillAt = now.state === 'paused' ? (stoodStillAt ?? performance.now()) : undefined
      if (stoodStillAt !== undefined && performance.now() - stoodStillAt > standstillMs) {
        throw interrupted(`VM ${domain.uuid} stood still for too long: the last of its memory does not arrive`)
      }
    }
  }
  return {
    end: () => {
      isOver = true
    },
    stuck: new Promise<never>((_, reject) => look().catch(reject)),
  }
}

function percentOf(stats: Record<string, ParameterValue>): number {
  const sum = (...names: string[]) => names.reduce((total, name) => total + Number(stats[name] ?? 0), 0)
  const total = sum('disk_total', 'memory_total')
  return total === 0 ? 0 : Math.min(99, Math.floor((100 * sum('disk_processed', 'memory_processed')) / total))
}

/** What waits for the next boot would be lost, or found missing, on the way: the target makes its definition of the stored one. */
function needNothingPending(uuid: string, now: ReadDomain, next: ReadDomain): void {
  const parts = ({ disks, nics }: ReadDomain) =>
    [...disks.map(({ target, path }) => `disk ${target} ${path}`), ...nics.map(({ mac }) => `NIC ${mac}`)].sort()
  const [here, there] = [parts(now), parts(next)]
  const differing = [...here.filter(one => !there.includes(one)), ...there.filter(one => !here.includes(one))]
  if (differing.length > 0) throw unsupported(`changes of VM ${uuid} wait for its next boot: ${differing.join(', ')}`)
}

const nbdPort = /<nbd [^>]*port=["'](\d+)["']/

/** 0 where it does not listen: a guest without disks. */
function portIn(pattern: RegExp, text: string): number {
  return Number(pattern.exec(text)?.[1] ?? 0)
}

const toText = (bytes: Uint8Array) => Buffer.from(bytes).toString('base64')
const toBytes = (text: string) => Buffer.from(text, 'base64')
const textIn = (cookie: string) => toBytes(cookie).toString()
const unsupported = (message: string) => new HypervisorError('LiveMigrationNotSupported', message)
const interrupted = (message: string) => new HypervisorError('MigrationInterrupted', message)
