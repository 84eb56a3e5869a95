/**
 * What the gateway needs of the rest of Muster: commands to actors, views of their records, waits, live facts.
 * An interface, so that the routes can be tested without NATS; nats-backend.ts is the real one.
 */
import type { AllocationQuestion, ToldDecision } from '../actors/contract/allocation.ts'
import type { Rejection } from '../actors/contract/errors.ts'
import type { HostContext } from '../actors/contract/host.ts'
import type { JobRecord } from '../actors/contract/job.ts'
import type { ActorRecord } from '../actors/contract/record.ts'
import type { ServerContext, StatusEvent, Sysinfo } from '../actors/contract/server.ts'
import type { TaskRecord } from '../actors/contract/task.ts'
import type { QueueContext, TicketBody } from '../actors/contract/ticket.ts'
import type { VerbKind, VerbOf, VerbParams, VerbValue } from '../actors/contract/verbs.ts'
import type { VmContext } from '../actors/contract/vm.ts'
import type { BootDefaults } from '../services/nats/boot-defaults.ts'
import type { Feed } from '../services/nats/feed.ts'
import type { EventBucket } from './change-events.ts'
import type { InstalledPlatform } from './platforms.ts'

export type { BootDefaults } from '../services/nats/boot-defaults.ts'

/** A server as its actor's record tells: `status` is `running`, `unknown` or `rebooting`. */
export type Server = Omit<ServerContext, 'open' | 'claims' | 'claims_version' | 'job' | 'setup_failed'> & {
  status: string
  /** The job that it runs. */
  job_uuid?: string
}

/** The part of a VM's record that listings and checks need. */
export type Vm = Pick<
  VmContext,
  | 'uuid'
  | 'server_uuid'
  | 'name'
  | 'alias'
  | 'owner_uuid'
  | 'brand'
  | 'ram'
  | 'vcpus'
  | 'cpu_cap'
  | 'quota'
  | 'host_key'
  | 'discovered'
  | 'modified_at'
> & {
  /** The word that CNAPI shows: running, stopped, failed, missing, provisioning, destroyed. */
  state: string
  /** Is there a domain, or one being made. */
  present: boolean
  /** Nic tags that its NICs are on. */
  nic_tags: readonly string[]
  /** Task of the operation in flight. */
  task_id: string | null
  domain_id: number | null
  domain_state: string | null
}

export type Host = HostContext

/** A waitlist queue as its actor's record tells, with its last transitions; `count`: how many there were. */
export type Queue = QueueContext & { count: number; recent: ActorRecord['recent'] }

/** A change of a queue; `revision` is the one of its record. Undefined: the queue was forgotten. */
export interface QueueChange {
  queue: Queue | undefined
  revision: number
}

export type Outcome<T> = { value: T } | { error: Rejection }

export interface CallOptions {
  key?: { value: string; fingerprint: string } | undefined
  reqId?: string | undefined
  deadlineMs?: number | undefined
}

/** A view of one bucket. */
export interface Shelf<T> {
  /** Resolves when everything acknowledged before the call is in the view. */
  barrier(): Promise<void>
  /** As the view has it: may lag by milliseconds. */
  get(id: string): T | undefined
  /** From the leader: decides before anything is refused. */
  load(id: string): Promise<T | undefined>
  all(): Iterable<T>
  /** Resolves once the entry is as wanted, by all that was acknowledged before; or when the limit has passed. */
  until(id: string, wanted: (value: T | undefined) => boolean, limitMs: number): Promise<void>
}

export interface VmShelf extends Shelf<Vm> {
  of(serverUuid: string): Vm[]
  /** The same as long as no VM of the server has changed. */
  version(serverUuid: string): unknown
  /** VMs of that domain name, whatever its case. */
  named(name: string): Vm[]
}

/** A ticket's body as listed: what it is sorted by without reading all of it. */
export interface StoredTicket {
  uuid: string
  ended: boolean
  /** ms since the epoch. */
  createdAt: number
  body(): TicketBody
}

export interface Capacities {
  capacities: Record<string, { cpu: number; ram: number; disk: number }>
  ratios: Record<string, Record<string, number>>
  errors: Record<string, string>
}

export interface Backend {
  call<K extends VerbKind, V extends VerbOf<K>>(
    kind: K,
    id: string,
    verb: V,
    params: VerbParams<K, V>,
    options?: CallOptions,
  ): Promise<Outcome<VerbValue<K, V>>>
  servers: Shelf<Server>
  vms: VmShelf
  hosts: Shelf<Host>
  /** Last sysinfo and status event of a server. */
  inventory: {
    barrier(): Promise<void>
    sysinfo(serverUuid: string): Sysinfo | undefined
    /** The same text as long as it has not changed. */
    sysinfoText(serverUuid: string): string | undefined
    status(serverUuid: string): StatusEvent | undefined
    /** What the server has told that it can boot. */
    platforms(serverUuid: string): readonly InstalledPlatform[]
  }
  /** The boot parameters of servers to come, from the leader; undefined while nobody has set any. */
  bootDefaults(): Promise<BootDefaults | undefined>
  tasks: {
    /** From the leader. */
    load(id: string): Promise<TaskRecord | undefined>
    /** The record once it is no longer active; undefined when the deadline passes or the signal aborts. */
    ended(id: string, limit: { deadlineMs: number; signal?: AbortSignal | undefined }): Promise<TaskRecord | undefined>
  }
  /** Jobs of the last 30 days. */
  jobs: {
    barrier(): Promise<void>
    all(): Iterable<JobRecord>
    /** From the leader. */
    load(uuid: string): Promise<JobRecord | undefined>
    /** The record once it no longer runs; undefined when the deadline passes or the signal aborts. */
    ended(uuid: string, limit: { deadlineMs: number; signal?: AbortSignal | undefined }): Promise<JobRecord | undefined>
  }
  queues: {
    barrier(): Promise<void>
    of(serverUuid: string): Queue[]
    /** From the leader, with the revision of its record. */
    load(key: string): Promise<{ queue: Queue; revision: number } | undefined>
    /** The queue once it is as wanted; undefined when the deadline passes or the signal aborts. */
    until(
      key: string,
      wanted: (queue: Queue) => boolean,
      limit: { deadlineMs: number; signal?: AbortSignal | undefined },
    ): Promise<Queue | undefined>
    /** Tells every change from now on; returns how to stop. */
    watch(key: string, told: (change: QueueChange) => void): () => void
  }
  /** Bodies of tickets, open or not. */
  tickets: {
    barrier(): Promise<void>
    get(uuid: string): TicketBody | undefined
    of(serverUuid: string): Iterable<StoredTicket>
    /** From the leader. `known`: a body is there, or was deleted within the last day. */
    look(uuid: string): Promise<{ body: TicketBody | undefined; known: boolean }>
  }
  /** The time this gateway last heard of a server, ms since the epoch. */
  lastHeartbeat(serverUuid: string): number | undefined
  beat(serverUuid: string): void
  /** The statechart of a kind, from any actor host. */
  machine(kind: string): Promise<Outcome<Record<string, unknown>>>
  /** The allocator's choice. A refusal comes with the decision that led to it. */
  allocate(
    question: AllocationQuestion,
  ): Promise<{ value: ToldDecision } | { error: Rejection; decision?: ToldDecision }>
  /** What servers have left, in MiB and percent of a core; `errors`: why others have nothing to tell. Undefined: of all. */
  capacity(serverUuids: string[] | undefined): Promise<Outcome<Capacities>>
  /** Brings everything shown of a server up to now, and tells what it has left: one question for all who ask together. */
  whole(serverUuid: string): Promise<Capacities>
  /** The same for showing servers: empty where no allocator answers at once. */
  left(serverUuids: readonly string[]): Promise<Capacities>
  /** A decision made in the last minutes, or why it did not choose that server. */
  decision(id: string, serverUuid: string | undefined): Promise<Outcome<Record<string, unknown>>>
  /** A page of the fleet as a document; `next` is the offset of the one after it. */
  fleet(offset: number): Promise<Outcome<{ servers: unknown[]; next?: number }>>
  /** Who waits in this gateway: for the ends of tasks, and for turns in queues. */
  waiting(): {
    tasks: { id: string; waiters: number }[]
    queues: { server_uuid: string; scope: string; id: string; waiters: number }[]
  }
  /** Every committed change, as it is told. */
  events: Pick<Feed<EventBucket>, 'read' | 'readers'>
  /** Tasks of all servers that have not ended, as the view has it. */
  openTasks(): number
  /** Is there a connection to NATS right now. */
  connected(): boolean
}
