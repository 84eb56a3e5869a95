/** libvirt's RPC protocol in TypeScript: connect with `Hypervisor.connect()`. */
export type { CallOptions, ConnectOptions } from './client.ts'
export { ERROR_CODES, ERROR_DOMAINS } from './codes.ts'
export {
  type BlockInfo,
  Domain,
  type DomainInfo,
  type MemoryStats,
  type MetadataKind,
  type MigrationCookie,
  type MigrationDestination,
} from './domain.ts'
export {
  ConnectionError,
  type ConnectionErrorReason,
  type ErrorCodeName,
  type ErrorDomainName,
  isLibvirtError,
  LibvirtError,
} from './errors.ts'
export type {
  DomainLifecycleEvent,
  DomainRebootEvent,
  EventKind,
  HypervisorEvents,
  NetworkLifecycleEvent,
  PoolLifecycleEvent,
  PoolRefreshEvent,
} from './events.ts'
export type { Affect, Flags } from './flags.ts'
export { type DomainStats, Hypervisor, type NodeInfo, type NodeMemory, type StatsOptions } from './hypervisor.ts'
export type { Load } from './link.ts'
export { Network } from './network.ts'
export type { Procedures } from './protocol.ts'
export type { Events as WireEvents } from './protocol-types.ts'
export { DomainSnapshot } from './snapshot.ts'
export type {
  DomainEventDetail,
  DomainEventName,
  DomainReasonName,
  DomainStateName,
  NetworkEventName,
  PoolEventName,
  PoolStateName,
  VolumeTypeName,
} from './states.ts'
export {
  StoragePool,
  type StoragePoolInfo,
  StorageVolume,
  type StorageVolumeInfo,
  type WipeAlgorithm,
} from './storage.ts'
export type { ParameterValue } from './values.ts'
export { XdrError } from './xdr.ts'
