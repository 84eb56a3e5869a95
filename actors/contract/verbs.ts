/**
 * Every verb an actor answers: `<kind>.<id>.cmd.<verb>` with these params, answered with this value or a rejection.
 * The actor host checks params by this table before the machine sees them.
 */
import * as v from 'valibot'
import { BootChange, BootFields } from './boot.ts'
import { Hostname, NetworkName, Uuid } from './ids.ts'
import { JobStart } from './job-params.ts'
import { LiveRead } from './messages.ts'
import { Claim, ServerAttributes, StatusEvent, Sysinfo } from './server.ts'
import { COMPOSED_TASKS, TASK_NAMES } from './task.ts'
import { ExpiresAt, QueueTriple } from './ticket.ts'
import { VmSpec } from './vm.ts'
import { Wanted } from './vm-changes.ts'

const none = v.object({})
const ended = v.object({ status: v.picklist(['complete', 'failure']) })
const failure = { code: v.string(), message: v.string() }

/** A verb of a VM: the task it becomes was named by the caller. `params` are the task's, without uuid. */
const operation = v.object({ task_id: Uuid, params: v.optional(v.record(v.string(), v.unknown()), {}) })
/** Answered when the task's record is durable. */
const taskStarted = v.object({ id: Uuid })

/** A difference between what a node reports and what it reported before. `seen_at`: when the node looked, its clock, ms. */
const Reported = v.object({
  server_uuid: Uuid,
  seen_at: v.number(),
  vm: v.looseObject({ uuid: Uuid, state: v.string() }),
})

/**
 * A ticket's fencing token, and how many open tickets were created before it: none means that it is active, -1 that it has ended (the
 * command came late). Small, since it is kept for repeats.
 */
const Place = v.object({ token: v.number(), ahead: v.number() })

export const VERBS = {
  cn: {
    /** The inventory of a node; creates the server, with `defaults` as its boot parameters. A beat of liveness too. */
    register: { params: v.object({ sysinfo: Sysinfo, defaults: v.optional(BootFields) }), value: none },
    /** A status event that came by REST. ResourceNotFound for an unregistered server. */
    status: { params: v.object({ status: StatusEvent }), value: none },
    /** Changes attributes; those not named stay. */
    update: { params: ServerAttributes, value: none },
    /** Boot parameters replaced, or merged into what is there. The actor `default` holds those of servers to come. */
    boot_set: { params: BootChange, value: none },
    boot_update: { params: BootChange, value: none },
    /**
     * Ends all that is open, has these VMs and hosts forgotten, and then the server. It comes back if its node registers again. `rest`:
     * there are more of them, which its owner looks for.
     */
    delete: {
      params: v.object({
        vm_uuids: v.optional(v.array(Uuid)),
        host_keys: v.optional(v.array(v.string())),
        rest: v.optional(v.boolean()),
      }),
      value: none,
    },
    /** Nothing that belonged to the deleted server is left. Sent by the owner itself. */
    forgot_all: { params: none, value: none },
    /** First beat after silence; first silence after beats. Sent by the owner itself. */
    heard: { params: none, value: none },
    silent: { params: none, value: none },
    /** Creates a task. `held`: it waits for task_release. `failed`: it is refused from the start and only recorded. */
    task_add: {
      params: v.object({
        task_id: Uuid,
        task: v.picklist([...TASK_NAMES, ...COMPOSED_TASKS]),
        params: v.record(v.string(), v.unknown()),
        vm_uuid: v.optional(Uuid),
        held: v.optional(v.boolean()),
        taken_over: v.optional(v.boolean()),
        failed: v.optional(v.object(failure)),
        req_id: v.optional(v.string()),
      }),
      value: taskStarted,
    },
    task_release: { params: v.object({ task_id: Uuid }), value: none },
    /** Of a composed task, by its VM: where it is, and that it has ended well. */
    task_note: { params: v.object({ task_id: Uuid, progress: v.number(), step: v.string() }), value: none },
    task_done: { params: v.object({ task_id: Uuid, result: v.record(v.string(), v.unknown()) }), value: none },
    /** A held task that another compute node has taken over (`task_add` there, with `taken_over`): it is not this one's any more. */
    task_drop: { params: v.object({ task_id: Uuid }), value: none },
    /** Ends an open task from the outside: by its VM (illegal at its turn) or by an operator (TaskCancelled). */
    task_fail: { params: v.object({ task_id: Uuid, ...failure }), value: none },
    /**
     * Holds room for a VM until its create arrives or the claim lapses. `seen`: the `claims_version` that was looked at when it was
     * decided; ClaimOutdated where there is another, so that no two decisions count on the same room.
     */
    claim: {
      params: v.object({ claim_id: Uuid, seen: v.number(), ...Claim.entries }),
      value: v.object({ claims_version: v.number() }),
    },
    /** Gives a claim up; one that is gone is left so. */
    unclaim: { params: v.object({ claim_id: Uuid }), value: none },
    /**
     * Starts a job; answered with the uuid of the one of that name that runs already, if there is one. JobRunning where it is of another
     * name. ServerNotRunning.
     */
    job_start: { params: JobStart, value: v.object({ job_uuid: Uuid }) },
    /** Ends a running job at its present step; one that is over stays as it is. */
    job_cancel: { params: v.object({ job_uuid: Uuid }), value: none },
    /** From now on new tasks are recorded as failed (AgentPaused); what is open goes on. Until `resume`. */
    pause: { params: none, value: none },
    resume: { params: none, value: none },
    /** Asks the agent now: table READS. AgentNotConnected when it does not answer. */
    read: { params: LiveRead, value: v.unknown() },
    /** The whole record, as stored. */
    get: { params: none, value: v.unknown() },
  },
  vm: {
    create: {
      params: v.object({
        server_uuid: Uuid,
        task_id: Uuid,
        spec: VmSpec,
        host_key: v.optional(v.string()),
        image_uuid: v.optional(v.string()),
      }),
      value: v.object({ id: Uuid, vm_uuid: Uuid }),
    },
    start: { params: operation, value: taskStarted },
    stop: { params: operation, value: taskStarted },
    reboot: { params: operation, value: taskStarted },
    kill: { params: operation, value: taskStarted },
    destroy: { params: operation, value: taskStarted },
    /** Snapshots; `snapshot_name` in the params. Without one a snapshot is named by the time of the command. */
    create_snapshot: { params: operation, value: taskStarted },
    rollback_snapshot: { params: operation, value: taskStarted },
    delete_snapshot: { params: operation, value: taskStarted },
    /** `imageOrder` in the params. */
    create_image: { params: operation, value: taskStarted },
    update: { params: operation, value: taskStarted },
    reprovision: { params: operation, value: taskStarted },
    /** To another server: MigrateParams. */
    migrate: { params: operation, value: taskStarted },
    /** Takes a migration back; `force`: without hearing from a node that does not answer. Answered with the migration's task. */
    migrate_abort: { params: v.object({ force: v.optional(v.boolean(), false) }), value: taskStarted },
    /** Goes on with an uncertain migration: the target is asked to start it again. */
    migrate_finish: { params: none, value: taskStarted },
    /**
     * The VM was changed beside its own operations, by a task of the node or by somebody else: the record takes it over. `ordered`: a VM
     * that nobody ordered is one of Muster's now. `idle`: VmBusy while an operation is in flight.
     */
    adopt: {
      params: v.object({
        server_uuid: Uuid,
        wanted: Wanted,
        ordered: v.optional(v.boolean()),
        idle: v.optional(v.boolean()),
      }),
      value: none,
    },
    /** The compute node says that the task in flight has ended. `vm`: the agent's last look at the VM, null if it is gone. */
    task_ended: {
      params: v.object({
        task_id: Uuid,
        status: ended.entries.status,
        /** The agent's clock, ms. */
        ended_at: v.number(),
        error: v.optional(v.object(failure)),
        vm: v.optional(v.nullable(v.looseObject({ state: v.string() }))),
        /** What the task has made of the VM; adopted when it ended well. */
        wanted: v.optional(Wanted),
        /** What a step of a migration found for the next. */
        found: v.optional(v.record(v.string(), v.unknown())),
      }),
      value: none,
    },
    reported: { params: Reported, value: none },
    /** The node was looked at and the VM is not there. */
    vanished: { params: v.object({ server_uuid: Uuid, seen_at: v.number() }), value: none },
    /** The server's record was deleted: this one goes too. A VM of another server stays. */
    forget: { params: v.object({ server_uuid: Uuid }), value: none },
    /** The server's record was lost (at `lost_at`, ms), and with it every task asked for before: nobody will tell their ends. */
    server_lost: { params: v.object({ server_uuid: Uuid, lost_at: v.number() }), value: none },
    /** Which verbs are legal now; for the others the guard that says no. */
    actions: {
      params: none,
      value: v.object({
        state: v.string(),
        actions: v.array(
          v.object({
            verb: v.string(),
            allowed: v.boolean(),
            waits_for: v.optional(v.string()),
            guard: v.optional(v.string()),
            code: v.optional(v.string()),
            reason: v.optional(v.string()),
          }),
        ),
      }),
    },
    get: { params: none, value: v.unknown() },
  },
  host: {
    /** Makes the host's VM on the node it is bound to, else binds it to `server_uuid`. HostExists; ServerMismatch is InvalidArgument. */
    create: {
      params: v.object({
        hostname: Hostname,
        server_uuid: Uuid,
        /** True when the caller named the server: a different binding is then refused. */
        server_named: v.optional(v.boolean(), false),
        task_id: Uuid,
        spec: VmSpec,
      }),
      value: v.object({ id: Uuid, vm_uuid: Uuid, server_uuid: Uuid }),
    },
    /** Makes a network on the node of this host, binding it as create does. */
    network_create: {
      params: v.object({
        hostname: Hostname,
        server_uuid: Uuid,
        server_named: v.optional(v.boolean(), false),
        task_id: Uuid,
        name: NetworkName,
        bridge: v.string(),
        vlan: v.number(),
      }),
      value: v.object({ id: Uuid, server_uuid: Uuid }),
    },
    /** Start or destroy the host's VM. VmNotFound when there is none. */
    start: { params: operation, value: taskStarted },
    destroy: { params: operation, value: taskStarted },
    /** The VM was destroyed or never came to be. */
    vm_gone: { params: v.object({ vm_uuid: Uuid }), value: none },
    /** The VM is on another server now. */
    vm_moved: { params: v.object({ vm_uuid: Uuid, server_uuid: Uuid }), value: none },
    /** The server it is bound to was deleted: it is bound to none. */
    forget: { params: v.object({ server_uuid: Uuid }), value: none },
    get: { params: none, value: v.unknown() },
  },
  waitlist: {
    /** A ticket at the end of the queue; the same ticket again is answered the same. QueueFull, InvalidArgument for another queue's key. */
    create: {
      params: v.object({
        ticket_uuid: Uuid,
        ...QueueTriple.entries,
        action: v.optional(v.string()),
        extra: v.optional(v.record(v.string(), v.unknown())),
        expires_at: ExpiresAt,
        reqid: v.optional(v.string()),
      }),
      value: Place,
    },
    /** Ends an open ticket; one that is not open is left as it is. */
    release: { params: v.object({ ticket_uuid: Uuid }), value: v.looseObject({}) },
    /** Removes tickets with their bodies, open or not. */
    delete: { params: v.object({ ticket_uuids: v.array(Uuid) }), value: v.looseObject({}) },
    get: { params: none, value: v.unknown() },
  },
} as const satisfies Record<string, Record<string, { params: v.GenericSchema; value: v.GenericSchema }>>

export type VerbKind = keyof typeof VERBS
export type VerbOf<K extends VerbKind> = keyof (typeof VERBS)[K] & string
export type VerbParams<K extends VerbKind, V extends VerbOf<K>> = (typeof VERBS)[K][V] extends {
  params: infer S extends v.GenericSchema
}
  ? v.InferInput<S>
  : never
export type VerbValue<K extends VerbKind, V extends VerbOf<K>> = (typeof VERBS)[K][V] extends {
  value: infer S extends v.GenericSchema
}
  ? v.InferOutput<S>
  : never
