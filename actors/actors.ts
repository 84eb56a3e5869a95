/** The table of actor kinds: machine, record version, migration, and what a person is shown of a state. */
import type { AnyMachineSnapshot, AnyStateMachine } from 'xstate'
import { computeNodeMachine } from './compute-node/machine.ts'
import type { ServerContext } from './contract/server.ts'
import { VERBS } from './contract/verbs.ts'
import type { VmContext } from './contract/vm.ts'
import { hostMachine } from './host/machine.ts'
import { legalActions, type VmAction } from './vm/actions.ts'
import { vmMachine } from './vm/machine.ts'
import { makeWaitlistMachine, waitlistMachine } from './waitlist/machine.ts'

export interface ActorKind {
  machine: AnyStateMachine
  /** Raised with every change of the context that old records do not fit; then `migrate` grows a step. */
  version: number
  /** Given to the machine of an actor that is new, beside its id. */
  input?: Record<string, unknown>
  /** A stored snapshot of an earlier version, brought to this one. */
  migrate(snapshot: StoredSnapshot, from: number): StoredSnapshot
  /** Verbs of `cmd` and their params; `get` and `actions` are answered from the record. */
  verbs: (typeof VERBS)[keyof typeof VERBS]
  /** The word an operator reads as status, from state and context. */
  status(state: string, context: Record<string, unknown>): string
  /** Which verbs are legal now; kinds without a lifecycle of their own have none. */
  actions?(snapshot: AnyMachineSnapshot): VmAction[]
}

export interface StoredSnapshot {
  value: unknown
  context: Record<string, unknown>
  status: string
}

const asStored = (snapshot: StoredSnapshot) => snapshot

export const ACTORS = {
  cn: { machine: computeNodeMachine, version: 1, migrate: asStored, verbs: VERBS.cn, status: serverStatus },
  vm: {
    machine: vmMachine,
    version: 1,
    migrate: asStored,
    verbs: VERBS.vm,
    status: vmStatus,
    actions: snapshot => legalActions(String(snapshot.value), snapshot.context as VmContext),
  },
  host: { machine: hostMachine, version: 1, migrate: asStored, verbs: VERBS.host, status: state => state },
  waitlist: { machine: waitlistMachine, version: 1, migrate: asStored, verbs: VERBS.waitlist, status: state => state },
} satisfies Record<string, ActorKind>

/** What the site sets of servers that register for the first time. */
export type FreshServer = Partial<Pick<ServerContext, 'datacenter' | 'boot_params'>>

/** The table as a host runs it. `ticketKeptMs`: how long tickets that have ended stay readable. */
export const actorsWith = ({ ticketKeptMs, fresh = {} }: { ticketKeptMs: number; fresh?: FreshServer }) => ({
  ...ACTORS,
  cn: { ...ACTORS.cn, input: { fresh } },
  waitlist: { ...ACTORS.waitlist, machine: makeWaitlistMachine(ticketKeptMs) },
})

export type ActorKinds = Record<string, ActorKind>

/** CNAPI's `status` of a server: what it is in the middle of takes the place of silence only (cnapi-behaviour §3.3). */
function serverStatus(state: string, context: Record<string, unknown>): string {
  const { transitional_status } = context as ServerContext
  return state === 'unknown' && transitional_status ? transitional_status : state
}

/** CNAPI's `state` of a VM: an operation in flight shows the state it began from until it ends. */
function vmStatus(state: string, context: Record<string, unknown>): string {
  if (state === 'provisioning') return 'provisioning'
  if (state === 'incomplete') return 'failed'
  // Not running where the record says that it is; whether elsewhere, nobody can say.
  if (state === 'uncertain') return 'stopped'
  const { operation, before } = context as VmContext
  return operation && before ? before : state
}
