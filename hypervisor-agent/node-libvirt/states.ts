/** Names for the numbers that libvirt uses for states, reasons and events (libvirt-domain.h, -network.h, -storage.h). */

const domainStates = {
  nostate: ['unknown'],
  running: [
    'unknown',
    'booted',
    'migrated',
    'restored',
    'from snapshot',
    'unpaused',
    'migration canceled',
    'save canceled',
    'wakeup',
    'crashed',
    'postcopy',
    'postcopy failed',
  ],
  blocked: ['unknown'],
  paused: [
    'unknown',
    'user',
    'migration',
    'save',
    'dump',
    'ioerror',
    'watchdog',
    'from snapshot',
    'shutting down',
    'snapshot',
    'crashed',
    'starting up',
    'postcopy',
    'postcopy failed',
  ],
  /** The guest is on its way down but its process still runs. */
  shutdown: ['unknown', 'user'],
  shutoff: ['unknown', 'shutdown', 'destroyed', 'crashed', 'migrated', 'saved', 'failed', 'from snapshot', 'daemon'],
  crashed: ['unknown', 'panicked'],
  pmsuspended: ['unknown'],
} as const

const domainEvents = {
  defined: ['added', 'updated', 'renamed', 'from snapshot'],
  undefined: ['removed', 'renamed'],
  started: ['booted', 'migrated', 'restored', 'from snapshot', 'wakeup'],
  suspended: [
    'paused',
    'migrated',
    'ioerror',
    'watchdog',
    'restored',
    'from snapshot',
    'api error',
    'postcopy',
    'postcopy failed',
  ],
  resumed: ['unpaused', 'migrated', 'from snapshot', 'postcopy', 'postcopy failed'],
  stopped: ['shutdown', 'destroyed', 'crashed', 'migrated', 'saved', 'failed', 'from snapshot'],
  shutdown: ['finished', 'guest', 'host'],
  pmsuspended: ['memory', 'disk'],
  crashed: ['panicked', 'crashloaded'],
} as const

const networkEvents = ['defined', 'undefined', 'started', 'stopped'] as const
const poolEvents = ['defined', 'undefined', 'started', 'stopped', 'created', 'deleted'] as const
const poolStates = ['inactive', 'building', 'running', 'degraded', 'inaccessible'] as const
const volumeTypes = ['file', 'block', 'dir', 'network', 'netdir', 'ploop'] as const

/** A number that this table does not know, from a newer libvirt, is called `unknown`. */
type Known<T> = T | 'unknown'
export type DomainStateName = keyof typeof domainStates
export type DomainReasonName = Known<(typeof domainStates)[DomainStateName][number]>
export type DomainEventName = Known<keyof typeof domainEvents>
export type DomainEventDetail = Known<(typeof domainEvents)[keyof typeof domainEvents][number]>
export type NetworkEventName = Known<(typeof networkEvents)[number]>
export type PoolEventName = Known<(typeof poolEvents)[number]>
export type PoolStateName = Known<(typeof poolStates)[number]>
export type VolumeTypeName = Known<(typeof volumeTypes)[number]>

export function domainStateOf(state: number, reason: number): { state: DomainStateName; reason: DomainReasonName } {
  const name = Object.keys(domainStates)[state] as DomainStateName | undefined
  if (!name) return { state: 'nostate', reason: 'unknown' }
  return { state: name, reason: domainStates[name][reason] ?? 'unknown' }
}

export function domainEventOf(event: number, detail: number): { event: DomainEventName; detail: DomainEventDetail } {
  const name = Object.keys(domainEvents)[event] as keyof typeof domainEvents | undefined
  if (!name) return { event: 'unknown', detail: 'unknown' }
  return { event: name, detail: domainEvents[name][detail] ?? 'unknown' }
}

export function networkEventOf(event: number): NetworkEventName {
  return networkEvents[event] ?? 'unknown'
}

export function poolEventOf(event: number): PoolEventName {
  return poolEvents[event] ?? 'unknown'
}

export function poolStateOf(state: number): PoolStateName {
  return poolStates[state] ?? 'unknown'
}

export function volumeTypeOf(type: number): VolumeTypeName {
  return volumeTypes[type] ?? 'unknown'
}
