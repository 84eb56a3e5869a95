/** What a compute node's record takes from its operators: attributes, boot parameters and their defaults, and its end. */
import * as fc from 'fast-check'
import * as assert from 'uvu/assert'
import { DELETED_KEPT_MS } from '../../actors/compute-node/delete.ts'
import { BOOT_MAX_LENGTH } from '../../actors/contract/boot.ts'
import { FORGOTTEN_AT_ONCE, OPEN_TASKS_MAX, type ServerContext } from '../../actors/contract/server.ts'
import type { VmContext } from '../../actors/contract/vm.ts'
import { BUCKETS } from '../../services/nats/buckets.ts'
import { suite } from '../suite.ts'
import { complete, type Fleet, makeFleet, registered, SERVER, specOf, taskId, VM, withRunningVm } from './fleet.ts'

const test = suite('compute node record')
const contextOf = (fleet: Fleet, id = SERVER) => fleet.record('cn', id).snapshot.context as unknown as ServerContext
const codeOf = (reply: object) => ('error' in reply ? (reply.error as { code: string }).code : undefined)
const OTHER = SERVER.replace(/1$/, '2')
const HOST_KEY = 'abcdef0123456789abcdef0123456789'

function registeredFleet(): Fleet {
  const fleet = makeFleet()
  registered(fleet)
  return fleet
}

test('an update changes what it names and nothing else; the same again writes nothing', () => {
  const fleet = registeredFleet()
  const before = contextOf(fleet)
  const change = {
    comments: 'by the window',
    reserved: true,
    reservation_ratio: 0.3,
    next_reboot: '',
    traits: { a: 1 },
  }
  assert.equal(fleet.command('cn', SERVER, 'update', change), { value: {} })
  assert.equal(contextOf(fleet), { ...before, ...change })
  const after = fleet.record('cn', SERVER)
  assert.equal(fleet.command('cn', SERVER, 'update', change), { value: {} })
  assert.equal(fleet.command('cn', SERVER, 'update', {}), { value: {} })
  assert.is(fleet.record('cn', SERVER), after)
})

test('an update of a silent server is kept', () => {
  const fleet = registeredFleet()
  fleet.command('cn', SERVER, 'silent')
  fleet.command('cn', SERVER, 'update', { rack_identifier: 'r1' })
  assert.is(contextOf(fleet).rack_identifier, 'r1')
  assert.is(fleet.record('cn', SERVER).state, 'unknown')
})

test('attributes that are not the operator\u2019s to set do not reach the record', () => {
  const fleet = registeredFleet()
  fleet.command('cn', SERVER, 'update', { hostname: 'mine', open: {}, comments: 'x' })
  assert.equal([contextOf(fleet).hostname, contextOf(fleet).comments], ['node1', 'x'])
  assert.is(codeOf(fleet.command('cn', SERVER, 'update', { transitional_status: 'poisoned' })), 'InvalidParameters')
})

const boot = {
  platform: '6.1.0',
  kernel_args: { a: '1', b: null },
  kernel_flags: { '-k': true },
  boot_modules: [{ path: 'etc/a', type: 'base64', content: 'YQ==' }],
  default_console: 'vga',
  serial: 'ttya',
}

test('boot_set replaces everything, and what it does not say is gone', () => {
  const fleet = registeredFleet()
  fleet.command('cn', SERVER, 'boot_set', boot)
  const { boot_platform, boot_params, kernel_flags, boot_modules, default_console, serial } = contextOf(fleet)
  assert.equal(
    { platform: boot_platform, kernel_args: boot_params, kernel_flags, boot_modules, default_console, serial },
    boot,
  )
  fleet.command('cn', SERVER, 'boot_set', { kernel_flags: { '-v': 'x' } })
  const now = contextOf(fleet)
  assert.equal(
    [now.boot_platform, now.boot_params, now.kernel_flags, now.boot_modules, now.default_console, now.serial],
    ['', {}, { '-v': 'x' }, [], '', ''],
  )
})

test('boot_update merges, null removes one, and lists of modules stay unless given', () => {
  const fleet = registeredFleet()
  fleet.command('cn', SERVER, 'boot_set', boot)
  fleet.command('cn', SERVER, 'boot_update', {
    kernel_args: { a: null, c: 2 },
    kernel_flags: { '-k': null, '-d': 'on' },
  })
  const now = contextOf(fleet)
  assert.equal([now.boot_params, now.kernel_flags], [{ b: null, c: 2 }, { '-d': 'on' }])
  assert.equal([now.boot_platform, now.boot_modules, now.default_console], ['6.1.0', boot.boot_modules, 'vga'])
  // Of a record that has no such flag at all.
  assert.equal(fleet.command('cn', SERVER, 'boot_update', { kernel_flags: { gone: null } }), { value: {} })
})

test('merging twice is merging once, whatever was there', () => {
  const seed = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31))
  console.log(`seed ${seed} (repeat with SEED=${seed})`)
  const values = fc.dictionary(fc.string({ maxLength: 3 }), fc.constantFrom(null, true, 'x', 1), { maxKeys: 4 })
  void fc.assert(
    fc.property(values, values, (first, change) => {
      const fleet = registeredFleet()
      fleet.command('cn', SERVER, 'boot_set', { kernel_args: first })
      fleet.command('cn', SERVER, 'boot_update', { kernel_args: change })
      const once = fleet.record('cn', SERVER)
      fleet.command('cn', SERVER, 'boot_update', { kernel_args: change })
      assert.is(fleet.record('cn', SERVER), once)
      const kept = (contextOf(fleet).boot_params ?? {}) as Record<string, unknown>
      for (const [name, value] of Object.entries(change)) {
        if (name === '__proto__') continue
        assert.is(Object.hasOwn(kept, name), value !== null)
      }
    }),
    { seed, numRuns: 200 },
  )
})

test('more boot parameters than a record should hold are refused, also bit by bit', () => {
  const fleet = registeredFleet()
  const half = 'x'.repeat(BOOT_MAX_LENGTH / 2)
  assert.equal(fleet.command('cn', SERVER, 'boot_update', { kernel_args: { a: half } }), { value: {} })
  assert.is(codeOf(fleet.command('cn', SERVER, 'boot_update', { kernel_flags: { b: half } })), 'InvalidArgument')
  assert.equal(contextOf(fleet).kernel_flags, {})
})

test('boot parameters of a server that nobody registered are refused, and leave no record', () => {
  const fleet = makeFleet()
  for (const verb of ['boot_set', 'boot_update', 'update', 'delete']) {
    assert.is(codeOf(fleet.command('cn', SERVER, verb, {})), 'ResourceNotFound', verb)
  }
  assert.is(fleet.records.size, 0)
})

test('the record `default` begins with its first change and is no server', () => {
  const fleet = makeFleet()
  assert.equal(fleet.command('cn', 'default', 'boot_update', {}), { value: {} })
  assert.is(fleet.records.size, 0)
  fleet.command('cn', 'default', 'boot_update', { kernel_args: { a: 1 } })
  assert.is(fleet.record('cn', 'default').state, 'defaults')
  assert.equal(contextOf(fleet, 'default').boot_params, { a: 1 })
  const sysinfo = { Hostname: 'x' }
  for (const [verb, params] of [
    ['register', { sysinfo }],
    ['update', { comments: 'x' }],
    ['delete', {}],
    ['heard', {}],
    ['task_add', { task_id: taskId(1), task: 'nop', params: {} }],
  ] as const) {
    assert.is(codeOf(fleet.command('cn', 'default', verb, params)), 'ResourceNotFound', verb)
  }
  assert.is(fleet.record('cn', 'default').state, 'defaults')
})

test('a new server begins with the defaults it is registered with, without their modules; a known one keeps its own', () => {
  const fleet = makeFleet()
  const defaults = {
    ...{
      boot_platform: '6.1.0',
      boot_params: { a: 1 },
      kernel_flags: { '-k': true },
      default_console: '',
      serial: 'ttyc',
    },
    boot_modules: [],
  }
  const sysinfo = { UUID: SERVER, Hostname: 'n', 'Live Image': '5.10.0' }
  fleet.command('cn', SERVER, 'register', { sysinfo, defaults })
  const now = contextOf(fleet)
  assert.equal(
    [now.boot_platform, now.boot_params, now.kernel_flags, now.default_console, now.serial, now.boot_modules],
    ['6.1.0', { a: 1 }, { '-k': true }, 'serial', 'ttyc', undefined],
  )
  fleet.command('cn', SERVER, 'register', { sysinfo, defaults: { ...defaults, boot_params: { b: 2 } } })
  assert.equal(contextOf(fleet).boot_params, { a: 1 })
  fleet.command('cn', OTHER, 'register', { sysinfo: { ...sysinfo, UUID: OTHER } })
  assert.equal([contextOf(fleet, OTHER).boot_platform, contextOf(fleet, OTHER).serial], ['5.10.0', 'ttyb'])
})

// Deletion.

/** A server with a running VM that is being stopped, one whose start waits behind it, and a task of its own. */
function busyFleet(): Fleet {
  const fleet = registeredFleet()
  withRunningVm(fleet)
  fleet.command('vm', VM, 'stop', { task_id: taskId(2), params: {} })
  fleet.command('vm', VM, 'start', { task_id: taskId(3), params: {} })
  fleet.settle()
  fleet.agent(SERVER, { id: taskId(2), status: 'accepted' })
  fleet.command('cn', SERVER, 'task_add', { task_id: taskId(4), task: 'nop', params: {} })
  const claim = { vm_uuid: VM, owner_uuid: VM, brand: 'kvm', ram: 1, until: fleet.now + 60_000 }
  fleet.command('cn', SERVER, 'claim', { claim_id: taskId(5), seen: 0, ...claim })
  return fleet
}

const cascade = { vm_uuids: [VM], host_keys: [HOST_KEY] }
const openTasks = [taskId(2), taskId(3), taskId(4)]

function assertGone(fleet: Fleet): void {
  for (const id of openTasks) {
    const task = fleet.tasks.get(id)
    assert.equal([task?.status, task?.error?.code], ['failure', 'ServerDeleted'], id)
  }
  assert.not.ok(fleet.records.has(`vm.${VM}`))
  // Its inventory goes after the commit.
  fleet.advance(0)
  assert.equal([...fleet.inventory.keys()], [])
  const { state, outbox, timers, snapshot } = fleet.record('cn', SERVER)
  assert.equal([state, outbox, Object.keys(timers).length], ['deleted', [], 1])
  const context = snapshot.context as unknown as ServerContext
  assert.equal([context.hostname, context.open, context.claims, context.agents], [SERVER, {}, undefined, []])
}

test('a deletion ends every open task, forgets the VMs, and leaves nothing of the server', () => {
  const fleet = busyFleet()
  assert.equal(fleet.command('cn', SERVER, 'delete', cascade), { value: {} })
  fleet.settle()
  assertGone(fleet)
  assert.is(codeOf(fleet.command('cn', SERVER, 'delete', cascade)), 'ResourceNotFound')
  fleet.advance(DELETED_KEPT_MS)
  assert.not.ok(fleet.records.has(`cn.${SERVER}`))
})

test('a deletion repeated by its sender is answered as the first was', () => {
  const fleet = busyFleet()
  const sent = { sender: 'gateway', sequence: 7, floor: 7 }
  assert.equal(fleet.command('cn', SERVER, 'delete', cascade, sent), { value: {} })
  fleet.settle()
  const after = fleet.record('cn', SERVER)
  assert.equal(fleet.command('cn', SERVER, 'delete', cascade, sent), { value: {} })
  assert.is(fleet.record('cn', SERVER), after)
})

test('a deletion ends the job that runs, and its deadline with it', () => {
  const fleet = registeredFleet()
  const job_uuid = taskId(9)
  const started = fleet.command('cn', SERVER, 'job_start', { job_uuid, name: 'server-reboot', params: {} })
  assert.equal(started, { value: { job_uuid } })
  fleet.command('cn', SERVER, 'delete', {})
  fleet.settle()
  assert.equal(
    [fleet.jobs.get(job_uuid)?.execution, fleet.jobs.get(job_uuid)?.error?.code],
    ['failed', 'ServerDeleted'],
  )
  assert.equal(
    [...fleet.tasks.values()].map(({ status, error }) => [status, error?.code]),
    [['failure', 'ServerDeleted']],
  )
  assert.is(contextOf(fleet).job, undefined)
  fleet.advance(0)
  assert.equal(Object.keys(fleet.record('cn', SERVER).timers).length, 1)
})

test('a crash after any number of the effects of a deletion leaves the same as none', () => {
  const total = (() => {
    const fleet = busyFleet()
    fleet.command('cn', SERVER, 'delete', cascade)
    return fleet.record('cn', SERVER).outbox.length
  })()
  assert.ok(total >= 5, `only ${total} effects`)
  for (let performed = 0; performed <= total; performed++) {
    const fleet = busyFleet()
    fleet.command('cn', SERVER, 'delete', cascade)
    const { outbox } = fleet.record('cn', SERVER)
    // Performed and never noted: the host died. The next one performs all of them.
    for (const { sequence, effect } of outbox.slice(0, performed)) {
      if (effect.type !== 'send') continue
      const floor = outbox[0]!.sequence
      const command = { sender: `cn:${SERVER}`, sequence, floor }
      fleet.command(effect.kind, effect.id, effect.verb, effect.params, command)
    }
    fleet.settle()
    assertGone(fleet)
  }
})

test('a commit of a deletion that was lost after its bodies were written is decided again to the same end', () => {
  const fleet = busyFleet()
  const before = fleet.record('cn', SERVER)
  fleet.command('cn', SERVER, 'delete', cascade)
  fleet.records.set(`cn.${SERVER}`, before)
  fleet.command('cn', SERVER, 'delete', cascade)
  fleet.settle()
  assertGone(fleet)
})

test('a deletion that is never committed leaves what the server has told', () => {
  const fleet = busyFleet()
  const before = fleet.record('cn', SERVER)
  const told = [...fleet.inventory.keys()]
  assert.equal(told, [`${SERVER}.sysinfo`])
  fleet.command('cn', SERVER, 'delete', cascade)
  fleet.records.set(`cn.${SERVER}`, before)
  fleet.advance(0)
  assert.equal([...fleet.inventory.keys()], told)
})

test('nothing but its registration brings a deleted server back', () => {
  const fleet = busyFleet()
  fleet.command('cn', SERVER, 'delete', cascade)
  fleet.settle()
  fleet.advance(0)
  const record = fleet.record('cn', SERVER)
  const late: [string, Record<string, unknown>][] = [
    ['heard', {}],
    ['silent', {}],
    ['update', { comments: 'late' }],
    ['resume', {}],
    ['task_add', { task_id: taskId(8), task: 'nop', params: {} }],
  ]
  for (const [verb, params] of late) {
    assert.is(codeOf(fleet.command('cn', SERVER, verb, params)), 'ResourceNotFound', verb)
  }
  assert.is(fleet.record('cn', SERVER), record)
  assert.equal([...fleet.inventory.keys()], [])
})

/** A server whose every open task is one of another VM, all accepted: the most that a deletion has to end. */
function fullFleet(): Fleet {
  const fleet = registeredFleet()
  for (let n = 0; n < OPEN_TASKS_MAX; n++) {
    const params = { task_id: taskId(n), task: 'machine_boot', vm_uuid: vmId(n), params: {} }
    fleet.command('cn', SERVER, 'task_add', params)
    fleet.agent(SERVER, { id: taskId(n), status: 'accepted' })
  }
  fleet.settle()
  return fleet
}
const vmId = (n: number) => VM.replace(/.{6}$/, String(n).padStart(6, '0'))
const many = (count: number, from: number) => Array.from({ length: count }, (_, n) => vmId(from + n))

test('a deletion of any size fits into its record: it forgets so many at once, and its mark says that there are more', () => {
  const more = { vm_uuids: many(1_000, 400), host_keys: Array.from({ length: 1_000 }, () => HOST_KEY) }
  for (const [fleet, given] of [
    [fullFleet(), more],
    [registeredFleet(), more],
    [fullFleet(), { vm_uuids: many(512, 1_000), rest: true }],
  ] as const) {
    const sender = { sender: 'gateway', sequence: 1, floor: 1, key: { value: 'k', fingerprint: 'f' } }
    assert.equal(fleet.command('cn', SERVER, 'delete', given, sender), { value: {} })
    const record = fleet.record('cn', SERVER)
    const forgets = record.outbox.filter(({ effect }) => effect.type === 'send' && effect.verb === 'forget')
    assert.is(forgets.length, FORGOTTEN_AT_ONCE)
    assert.ok(JSON.stringify(record).length < BUCKETS.cn.maxValueBytes, `${JSON.stringify(record).length} bytes`)
    assert.is(contextOf(fleet).forgetting, true)
  }
})

test('the mark of a deletion that left something stays until nothing is left, and ten minutes at least', () => {
  const marked = (given: Record<string, unknown>) => {
    const fleet = registeredFleet()
    fleet.command('cn', SERVER, 'delete', given)
    fleet.settle()
    return fleet
  }
  const rest = marked({ rest: true })
  rest.advance(5 * DELETED_KEPT_MS)
  assert.is(rest.record('cn', SERVER).state, 'deleted')
  assert.equal(rest.command('cn', SERVER, 'forgot_all'), { value: {} })
  assert.is(contextOf(rest).forgetting, undefined)
  rest.advance(DELETED_KEPT_MS)
  assert.not.ok(rest.records.has(`cn.${SERVER}`))
  // Without more than it has named, saying so changes nothing.
  const all = marked({ vm_uuids: [VM] })
  const record = all.record('cn', SERVER)
  assert.equal(all.command('cn', SERVER, 'forgot_all'), { value: {} })
  assert.is(all.record('cn', SERVER), record)
  all.advance(DELETED_KEPT_MS)
  assert.not.ok(all.records.has(`cn.${SERVER}`))
})

test('a server that comes back is not one that something is left of', () => {
  const fleet = registeredFleet()
  fleet.command('cn', SERVER, 'delete', { rest: true })
  registered(fleet)
  assert.equal([fleet.record('cn', SERVER).state, contextOf(fleet).forgetting], ['running', undefined])
  assert.is(codeOf(fleet.command('cn', SERVER, 'forgot_all')), 'ResourceNotFound')
  fleet.command('cn', SERVER, 'delete', {})
  assert.is(contextOf(fleet).forgetting, undefined)
})

test('a node that registers right after its deletion keeps what it tells then', () => {
  const fleet = busyFleet()
  fleet.command('cn', SERVER, 'delete', cascade)
  registered(fleet)
  fleet.advance(60_000)
  assert.equal([...fleet.inventory.keys()], [`${SERVER}.sysinfo`])
})

test('a node that goes on reporting comes back as a new server, and its VM is discovered again', () => {
  const fleet = busyFleet()
  fleet.command('cn', SERVER, 'update', { comments: 'old' })
  fleet.command('cn', SERVER, 'delete', cascade)
  registered(fleet)
  fleet.settle()
  assert.equal([contextOf(fleet).hostname, contextOf(fleet).comments, contextOf(fleet).open], ['node1', '', {}])
  assert.is(fleet.record('cn', SERVER).state, 'running')
  const vm = { uuid: VM, state: 'running', alias: 'web' }
  fleet.command('vm', VM, 'reported', { server_uuid: SERVER, seen_at: fleet.now, vm })
  const found = fleet.record('vm', VM).snapshot.context as unknown as VmContext
  assert.equal([fleet.record('vm', VM).state, found.discovered, found.alias], ['running', true, 'web'])
  fleet.advance(DELETED_KEPT_MS)
  assert.is(fleet.record('cn', SERVER).state, 'running')
})

test('what a VM asks for in its new life is not taken for a repeat from its earlier one', () => {
  const fleet = registeredFleet()
  withRunningVm(fleet)
  fleet.command('cn', SERVER, 'delete', { vm_uuids: [VM] })
  fleet.settle()
  fleet.now += 1
  registered(fleet)
  fleet.command('vm', VM, 'reported', { server_uuid: SERVER, seen_at: fleet.now, vm: { uuid: VM, state: 'stopped' } })
  fleet.command('vm', VM, 'start', { task_id: taskId(2), params: {} })
  fleet.settle()
  assert.is(fleet.tasks.get(taskId(2))?.status, 'active')
  complete(fleet, taskId(2), { vm: { uuid: VM, state: 'running' } })
  assert.is(fleet.record('vm', VM).state, 'running')
})

test('a VM of another server stays when a server is deleted', () => {
  const fleet = busyFleet()
  assert.equal(fleet.command('vm', VM, 'forget', { server_uuid: OTHER }), { value: {} })
  assert.is(fleet.record('vm', VM).state, 'stopping')
})

test('a hostname of a deleted server is free again, with and without a VM', () => {
  const fleet = registeredFleet()
  const named = { hostname: 'one.example.com', server_uuid: SERVER, task_id: taskId(1) }
  fleet.command('host', HOST_KEY, 'create', { ...named, spec: specOf(VM, 'one.example.com') })
  fleet.settle()
  complete(fleet, taskId(1), { vm: { uuid: VM, state: 'running' } })
  const other = HOST_KEY.replace('a', 'b')
  fleet.command('host', other, 'network_create', {
    ...{ ...named, task_id: taskId(2), hostname: 'two.example.com', name: 'net0', bridge: 'br0', vlan: 1 },
  })
  fleet.settle()
  fleet.command('cn', SERVER, 'delete', { vm_uuids: [VM], host_keys: [HOST_KEY, other] })
  fleet.settle()
  for (const key of [HOST_KEY, other]) {
    const { state, snapshot } = fleet.record('host', key)
    assert.equal([state, snapshot.context['server_uuid'], snapshot.context['networks']], ['free', null, []])
  }
  fleet.advance(24 * 3600_000)
  assert.not.ok(fleet.records.has(`host.${HOST_KEY}`), 'a hostname bound to nothing is forgotten after a day')
})

test('a hostname that is bound again within the day stays', () => {
  const fleet = registeredFleet()
  const create = { hostname: 'one.example.com', server_uuid: SERVER, spec: specOf(VM, 'one.example.com') }
  fleet.command('host', HOST_KEY, 'create', { ...create, task_id: taskId(1) })
  fleet.settle()
  fleet.command('cn', SERVER, 'delete', { vm_uuids: [VM], host_keys: [] })
  fleet.settle()
  registered(fleet)
  fleet.advance(3600_000)
  fleet.command('host', HOST_KEY, 'create', { ...create, task_id: taskId(2) })
  fleet.settle()
  complete(fleet, taskId(2), { vm: { uuid: VM, state: 'running' } })
  fleet.advance(25 * 3600_000)
  assert.is(fleet.record('host', HOST_KEY).state, 'bound')
})

// A record that was lost.

test('operations of a VM whose server\u2019s record was removed by hand end at once, with their tasks', () => {
  const fleet = busyFleet()
  fleet.records.delete(`cn.${SERVER}`)
  fleet.now += 5
  fleet.command('vm', VM, 'server_lost', { server_uuid: SERVER, lost_at: fleet.now })
  fleet.settle()
  const { state, snapshot } = fleet.record('vm', VM)
  const { operation, waiting, failure } = snapshot.context as unknown as VmContext
  assert.equal([state, operation, waiting, failure?.code], ['running', null, [], 'ServerDeleted'])
  for (const id of [taskId(2), taskId(3)]) {
    assert.equal([fleet.tasks.get(id)?.status, fleet.tasks.get(id)?.error?.code], ['failure', 'ServerDeleted'])
  }
  assert.not.ok(fleet.records.has(`cn.${SERVER}`))
})

test('an operation begun after the loss, or on another server, goes on', () => {
  const fleet = busyFleet()
  const since = fleet.now
  for (const lost of [
    { server_uuid: SERVER, lost_at: since - 1 },
    { server_uuid: OTHER, lost_at: since + 1 },
  ]) {
    assert.equal(fleet.command('vm', VM, 'server_lost', lost), { value: {} })
    assert.is(fleet.record('vm', VM).state, 'stopping')
  }
  const idle = registeredFleet()
  withRunningVm(idle)
  const before = idle.record('vm', VM)
  idle.command('vm', VM, 'server_lost', { server_uuid: SERVER, lost_at: idle.now })
  assert.is(idle.record('vm', VM), before)
})

test('the end of a task that a lost record held still reaches its own record, and only its own', () => {
  const fleet = busyFleet()
  fleet.records.delete(`cn.${SERVER}`)
  registered(fleet)
  assert.equal(fleet.agent(SERVER, { id: taskId(4), status: 'active', progress: 5 }), { value: { go: false } })
  assert.is(fleet.tasks.get(taskId(4))?.status, 'active')
  assert.equal(fleet.agent(SERVER, { id: taskId(4), status: 'complete', result: { slept: 1 } }), {
    value: { go: false },
  })
  assert.is(fleet.tasks.get(taskId(4))?.status, 'complete')
  fleet.agent(SERVER, { id: taskId(4), status: 'failure', error: { code: 'TaskFailed', message: 'late' } })
  assert.is(fleet.tasks.get(taskId(4))?.status, 'complete')
  registered(fleet, OTHER)
  fleet.agent(OTHER, { id: taskId(2), status: 'complete' })
  assert.is(fleet.tasks.get(taskId(2))?.status, 'active', 'no node ends a task of another')
})

test.run()
