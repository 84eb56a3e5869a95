/**
 * What the server says unasked, typed. Events are lost while disconnected, so whoever needs the truth subscribes
 * first, then lists, and lists again after each `reconnect`.
 */
import type { Client } from './client.ts'
import type { ConnectionError } from './errors.ts'
import type { EventName } from './protocol.ts'
import type { Events } from './protocol-types.ts'
import {
  type DomainEventDetail,
  type DomainEventName,
  domainEventOf,
  type NetworkEventName,
  networkEventOf,
  type PoolEventName,
  poolEventOf,
} from './states.ts'
import { uuidText } from './values.ts'

export interface DomainLifecycleEvent {
  name: string
  uuid: string
  event: DomainEventName
  detail: DomainEventDetail
}

/** The guest rebooted; libvirt may say so more than once for one reboot. */
export interface DomainRebootEvent {
  name: string
  uuid: string
}

export interface NetworkLifecycleEvent {
  name: string
  uuid: string
  event: NetworkEventName
}

export interface PoolLifecycleEvent {
  name: string
  uuid: string
  event: PoolEventName
}

export interface PoolRefreshEvent {
  name: string
  uuid: string
}

export interface HypervisorEvents {
  domain: [DomainLifecycleEvent]
  reboot: [DomainRebootEvent]
  network: [NetworkLifecycleEvent]
  pool: [PoolLifecycleEvent]
  poolRefresh: [PoolRefreshEvent]
  /** The connection was lost; calls fail until `reconnect`. */
  disconnect: [ConnectionError]
  /** It is back, with all subscriptions; what happened in between was not told. */
  reconnect: []
  /** It ended for good. */
  close: [ConnectionError]
}

/** What one can subscribe to. */
export type EventKind = 'domain' | 'reboot' | 'network' | 'pool' | 'poolRefresh'

/** How each kind is registered, which message then comes, and what it becomes. */
export const subscriptions: { [Kind in EventKind]: Subscription<Kind> } = {
  domain: {
    register: client => client.register('connect_domain_event_callback_register_any', { eventID: 0, dom: null }),
    message: 'domain_event_callback_lifecycle',
    read: payload => {
      const { dom, event, detail } = (payload as Events['domain_event_callback_lifecycle']).msg
      return { ...identity(dom), ...domainEventOf(event, detail) }
    },
  },
  reboot: {
    register: client => client.register('connect_domain_event_callback_register_any', { eventID: 1, dom: null }),
    message: 'domain_event_callback_reboot',
    read: payload => identity((payload as Events['domain_event_callback_reboot']).msg.dom),
  },
  network: {
    register: client => client.register('connect_network_event_register_any', { eventID: 0, net: null }),
    message: 'network_event_lifecycle',
    read: payload => {
      const { net, event } = payload as Events['network_event_lifecycle']
      return { ...identity(net), event: networkEventOf(event) }
    },
  },
  pool: {
    register: client => client.register('connect_storage_pool_event_register_any', { eventID: 0, pool: null }),
    message: 'storage_pool_event_lifecycle',
    read: payload => {
      const { pool, event } = payload as Events['storage_pool_event_lifecycle']
      return { ...identity(pool), event: poolEventOf(event) }
    },
  },
  poolRefresh: {
    register: client => client.register('connect_storage_pool_event_register_any', { eventID: 1, pool: null }),
    message: 'storage_pool_event_refresh',
    read: payload => identity((payload as Events['storage_pool_event_refresh']).pool),
  },
}

interface Subscription<Kind extends EventKind> {
  register: (client: Client) => Promise<void>
  message: EventName
  read: (payload: unknown) => HypervisorEvents[Kind][0]
}

function identity({ name, uuid }: { name: string; uuid: Uint8Array }): { name: string; uuid: string } {
  return { name, uuid: uuidText(uuid) }
}
