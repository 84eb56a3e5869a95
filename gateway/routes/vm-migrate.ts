/**
 * Moving a VM to another server. CNAPI's `migrationTask` says what is to be done: `migrate` (or `begin`) is the whole migration, since
 * Muster's saga knows no steps that a caller could order; `abort` takes it back, `finish` goes on with an uncertain one.
 */
import { randomBytes } from 'node:crypto'
import * as v from 'valibot'
import { CLAIM_MS, NOBODY } from '../../actors/contract/allocation.ts'
import { type Rejection, rejection } from '../../actors/contract/errors.ts'
import type { Backend, Server, Vm } from '../backend.ts'
import { findServer, refuseUnlessRunning } from '../gates.ts'
import { chosen } from '../placement.ts'
import { type Answer, type AnyRow, row } from '../row.ts'
import { booleanWord, numberFromZero, object, objectOf, text, uuid } from '../rules.ts'
import { started } from '../tasks.ts'

const ACTIONS = {
  migrate: 'begin',
  begin: 'begin',
  abort: 'abort',
  cancel: 'abort',
  finish: 'finish',
} as const satisfies Record<string, 'begin' | 'abort' | 'finish'>

const migrationTask = objectOf({ action: text, record: object })

export const vmMigrateRows: AnyRow[] = [
  row({
    method: 'POST',
    path: '/servers/:server_uuid/vms/:uuid/migrate',
    name: 'VmMigrate',
    summary:
      'Moves a VM to another server: the one named (`target_server_uuid`, also in migrationTask.record), else one that placement ' +
      'chooses. A running VM is stopped, moved and started; with `live` it is moved while it runs, where both servers are QEMU hosts that ' +
      'can; the result of its task tells how long the guest stood still then (`downtime_ms`). migrationTask.action is `migrate` or `begin`; `abort` takes a migration back unless the VM runs on the target already (`force`: without hearing from a server that does not answer, whose copy must not run), `finish` goes on with an uncertain one.',
    gate: 'GV',
    strict: false,
    params: {
      migrationTask,
      target_server_uuid: v.optional(uuid),
      live: v.optional(booleanWord),
      force: v.optional(booleanWord),
      timeout: v.optional(v.pipe(numberFromZero, v.maxValue(3600, 'must be at most 3600'))),
      jobid: v.optional(text),
    },
    success: {
      status: 200,
      description:
        'The task of the whole migration. Its result: `{server_uuid, source_removed, downtime_ms, vm}`; `downtime_ms`, milliseconds, of a live one where the hypervisor tells',
      body: v.object({ id: v.string() }),
    },
    errors: [
      'InvalidArgument',
      'MigrationNotFound',
      'MigrationCommitted',
      'NoAllocatableServersError',
      'ServerNotRunning',
      'TooManyWaiting',
      'VmBusy',
    ],
    handle: async ({ server, vm, params, ids, key, reqId }, backend): Promise<Answer> => {
      const { migrationTask: asked, live, force, timeout, target_server_uuid } = params
      const action = Object.hasOwn(ACTIONS, asked.action) ? ACTIONS[asked.action as keyof typeof ACTIONS] : undefined
      const options = { key, reqId }
      switch (action) {
        case undefined:
          return { error: rejection('InvalidArgument', notAnAction(asked.action)) }
        case 'abort':
          return started(
            await backend.call('vm', vm.uuid, 'migrate_abort', force === undefined ? {} : { force }, options),
          )
        case 'finish':
          return started(await backend.call('vm', vm.uuid, 'migrate_finish', {}, options))
        case 'begin': {
          const wanted = v.safeParse(v.optional(booleanWord, false), live ?? asked.record['live'])
          if (!wanted.success) {
            return { error: rejection('InvalidArgument', `migrationTask.record.live ${wanted.issues[0].message}`) }
          }
          const isLive = wanted.output
          if (isLive && (force !== undefined || timeout !== undefined)) {
            return {
              error: rejection('InvalidArgument', 'force and timeout say how a VM is stopped: a live one is not'),
            }
          }
          const refusal = await refuseUnlessRunning(server, backend)
          if (refusal) return { error: refusal }
          const target = await targetOf(target_server_uuid ?? asked.record['target_server_uuid'], server, vm, backend)
          if ('error' in target) return target
          const stop = { ...(force === undefined ? {} : { force }), ...(timeout === undefined ? {} : { timeout }) }
          const how = isLive ? { live: true } : stop
          const order = { target_server_uuid: target.uuid, token: randomBytes(32).toString('hex'), ...how }
          return started(await backend.call('vm', vm.uuid, 'migrate', { task_id: ids.task(), params: order }, options))
        }
      }
    },
  }),
]

const notAnAction = (action: string) =>
  `migrationTask.action ${action} is not supported: migrate or begin is the whole migration, abort takes it back, finish goes on with an uncertain one`

/** The server the caller names, which must run; else the choice of placement among the others, claimed for the VM. */
async function targetOf(
  named: unknown,
  from: Server,
  vm: Vm,
  backend: Backend,
): Promise<{ uuid: string } | { error: Rejection }> {
  if (named !== undefined) {
    const server = await findServer(named, backend)
    if ('error' in server) return server
    if (server.uuid === from.uuid) {
      return { error: rejection('InvalidArgument', `the VM is on server ${from.uuid} already`) }
    }
    const refusal = await refuseUnlessRunning(server, backend)
    return refusal ? { error: refusal } : { uuid: server.uuid }
  }
  await backend.servers.barrier()
  const others = [...backend.servers.all()].map(({ uuid }) => uuid).filter(uuid => uuid !== from.uuid)
  const { owner_uuid, ram, brand, vcpus, cpu_cap, quota, nic_tags } = vm
  const wanted = {
    vm_uuid: vm.uuid,
    owner_uuid: owner_uuid ?? NOBODY,
    ...{ ram, brand, vcpus },
    ...(cpu_cap === null ? {} : { cpu_cap }),
    ...(quota === null ? {} : { quota }),
  }
  const question = { vm: wanted, nic_tags: [...nic_tags], servers: others, claim_ms: CLAIM_MS, steps: 'none' as const }
  const choice = await backend.allocate(question)
  return 'error' in choice ? { error: choice.error } : { uuid: chosen(choice.value) }
}
