/**
 * Records to fill buckets with: one server, VM and task are made by the real decisions, from registration through an
 * hour of stops and starts; the others are that record with other ids. So they have the size and the fields that real ones have.
 */
import type { TaskRecord } from '../actors/contract/task.ts'
import { headersOf } from '../services/runtime/pending-index.ts'
import { complete, makeFleet, registered, SERVER, specOf, taskId, VM } from '../test/unit/fleet.ts'
import type { Entry } from './load.ts'

const uuid = (first: string) => (n: number) => `${first}-0000-4000-8000-${n.toString(16).padStart(12, '0')}`
export const serverUuid = uuid('5e4fe400')
export const vmUuid = uuid('4a000000')
export const endedTaskId = uuid('7a5c0000')

const templates = makeTemplates()

/** A running server. */
export function serverEntry(n: number): Entry {
  return {
    key: serverUuid(n),
    text: templates.server.text.replaceAll(SERVER, serverUuid(n)),
    head: templates.server.head,
  }
}

/** A running VM at rest; `server` is the number of the server it belongs to. */
export function vmEntry(n: number, server: number): Entry {
  const text = templates.vm.text.replaceAll(VM, vmUuid(n)).replaceAll(SERVER, serverUuid(server))
  return { key: vmUuid(n), text, head: { ...templates.vm.head, Server: serverUuid(server) } }
}

/** A task that ended well. */
export function taskEntry(n: number, servers = 1000): Entry {
  const text = templates.task.replaceAll(VM, vmUuid(n % 200_000)).replaceAll(SERVER, serverUuid(n % servers))
  return { key: endedTaskId(n), text: text.replace(templates.taskId, endedTaskId(n)) }
}

export const bytesOf = ({ text }: Entry): number => Buffer.byteLength(text)

function makeTemplates() {
  const fleet = makeFleet()
  fleet.now = Date.now() - 3600_000
  registered(fleet)
  const nics = [{ mac: '52:54:00:12:34:56', nic_tag: 'internal', vlan_id: 101, ip: '10.1.1.2', primary: true }]
  const spec = { ...specOf(VM), alias: 'web1', disks: [{ size_mib: 10_240 }, { size_mib: 20_480 }], nics }
  fleet.command('vm', VM, 'create', { server_uuid: SERVER, task_id: taskId(1), spec })
  fleet.settle()
  complete(fleet, taskId(1), { vm: { uuid: VM, state: 'running' } })
  // Twelve more transitions, so that `recent` is nearly full and no sender is remembered any more.
  for (let n = 2; n < 8; n++) {
    fleet.advance(200_000)
    const verb = n % 2 ? 'start' : 'stop'
    fleet.command('vm', VM, verb, { task_id: taskId(n), params: {} })
    fleet.settle()
    complete(fleet, taskId(n), { vm: { uuid: VM, state: n % 2 ? 'running' : 'stopped' } })
  }
  const [server, vm] = [fleet.record('cn', SERVER), fleet.record('vm', VM)]
  const task = fleet.tasks.get(taskId(7)) as TaskRecord
  if (vm.state !== 'running' || vm.outbox.length > 0 || Object.keys(vm.timers).length > 0) {
    throw new Error(`the template of a VM is not at rest: ${JSON.stringify(vm)}`)
  }
  return {
    server: { text: JSON.stringify(server), head: headersOf(server) },
    vm: { text: JSON.stringify(vm), head: headersOf(vm) },
    task: JSON.stringify(task),
    taskId: taskId(7),
  }
}
