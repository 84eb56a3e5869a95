/** Snapshots and images of a VM in its machine and at the gateway: names, states while they are worked on, where they leave the VM. */
import * as assert from 'uvu/assert'
import { snapshotNameAt } from '../../actors/contract/snapshot.ts'
import * as backends from '../fake-backend.ts'
import { preparedBackend } from '../gateway-samples.ts'
import { suite } from '../suite.ts'
import { complete, fail, makeFleet, registered, taskId, VM, withRunningVm } from './fleet.ts'

const test = suite('vm snapshots')
const path = `/servers/${backends.SERVER}/vms/${backends.VM}/snapshots`

function running() {
  const fleet = makeFleet()
  registered(fleet)
  withRunningVm(fleet)
  return fleet
}

test('each verb has a state of its own and leaves the VM as its node then sees it', () => {
  const cases = [
    ['create_snapshot', 'snapshotting', 'running'],
    ['rollback_snapshot', 'rolling_back', 'stopped'],
    ['delete_snapshot', 'deleting_snapshot', 'running'],
    ['create_image', 'imaging', 'running'],
  ] as const
  for (const [verb, during, after] of cases) {
    const fleet = running()
    fleet.command('vm', VM, verb, { task_id: taskId(50), params: { snapshot_name: 'a' } })
    assert.is(fleet.record('vm', VM).state, during)
    fleet.settle()
    assert.equal(fleet.tasks.get(taskId(50))?.params, { snapshot_name: 'a', uuid: VM })
    complete(fleet, taskId(50), { vm: { uuid: VM, state: after } })
    assert.is(fleet.record('vm', VM).state, after)
  }
})

test('a snapshot without a name is called by the time it was asked for, also when it has to wait', () => {
  const fleet = running()
  fleet.command('vm', VM, 'create_snapshot', { task_id: taskId(50), params: {} })
  const first = snapshotNameAt(fleet.now)
  fleet.settle()
  assert.is(fleet.tasks.get(taskId(50))?.params?.['snapshot_name'], first)
  fleet.now += 1_500
  const second = snapshotNameAt(fleet.now)
  fleet.command('vm', VM, 'create_snapshot', { task_id: taskId(51), params: {} })
  fleet.settle()
  fleet.now += 60_000
  complete(fleet, taskId(50), { vm: { uuid: VM, state: 'running' } })
  fleet.settle()
  assert.is(fleet.tasks.get(taskId(51))?.params?.['snapshot_name'], second)
  assert.is.not(first, second)
  assert.is(snapshotNameAt(Date.parse('2026-11-22T04:15:30.123Z')), '20261122T041530123Z')
})

test('a snapshot that fails leaves the VM running', () => {
  const fleet = running()
  fleet.command('vm', VM, 'create_snapshot', { task_id: taskId(50), params: { snapshot_name: 'a' } })
  fleet.settle()
  fail(fleet, taskId(50), { code: 'HypervisorError', message: 'no' })
  assert.is(fleet.record('vm', VM).status, 'running')
})

test('the gateway sends each verb with its name, and lists what the node has', async () => {
  const { ask, backend } = backends.fakeGateway(preparedBackend())
  await ask('PUT', path, { body: { snapshot_name: 'a' } })
  await ask('PUT', path, { body: {} })
  await ask('PUT', `${path}/a/rollback`)
  await ask('DELETE', `${path}/a`)
  assert.equal(
    backend.calls.map(({ kind, verb, params }) => [kind, verb, params['params']]),
    [
      ['vm', 'create_snapshot', { snapshot_name: 'a' }],
      ['vm', 'create_snapshot', {}],
      ['vm', 'rollback_snapshot', { snapshot_name: 'a' }],
      ['vm', 'delete_snapshot', { snapshot_name: 'a' }],
    ],
  )
  const snapshot = { name: 'a', created_at: '2026-11-22T04:15:30.000Z', state: 'running', memory: true, size_bytes: 9 }
  backend.reads.set('machine_snapshots', { value: [{ ...snapshot, parent: null, current: true }] })
  const { status, body } = await ask('GET', path)
  assert.equal([status, body], [200, [{ ...snapshot, parent: null, current: true }]])
})

test('names that could be paths, options or nothing are refused before anybody is asked', async () => {
  const { ask, backend } = backends.fakeGateway(preparedBackend())
  const bad = ['', '.', '..', '-rf', 'a/b', 'a b', '<x>&', 'a\n', 'ü', 'x'.repeat(65), '../../etc/passwd']
  for (const snapshot_name of bad) {
    const { status, body } = await ask('PUT', path, { body: { snapshot_name } })
    assert.equal([status, body.code], [400, 'InvalidParameters'], JSON.stringify(snapshot_name))
  }
  for (const name of bad.slice(3)) {
    const { status } = await ask('DELETE', `${path}/${encodeURIComponent(name)}`)
    assert.ok(status >= 400, `${name}: ${status}`)
  }
  assert.equal(
    backend.calls.filter(({ kind }) => kind === 'vm'),
    [],
  )
})

test('every parameter of an image that is wrong is told at once', async () => {
  const { ask, backend } = backends.fakeGateway(preparedBackend())
  const images = path.replace('snapshots', 'images')
  const bad = {
    compression: 'zip',
    imgapi_url: 'file:///etc/passwd',
    incremental: 'perhaps',
    prepare_image_script: 7,
    manifest: { uuid: '../x' },
  }
  const { status, body } = await ask('POST', images, { body: bad })
  assert.is(status, 400)
  const fields = body.errors.map((error: { field: string }) => error.field)
  assert.equal(fields.sort(), ['compression', 'imgapi_url', 'incremental', 'manifest.uuid', 'prepare_image_script'])
  assert.is((await ask('POST', images, { body: {} })).status, 400)
  assert.equal(
    backend.calls.filter(({ kind }) => kind === 'vm'),
    [],
  )
})

test('a script does not stay in the record of its VM', () => {
  const fleet = running()
  const script = 'x'.repeat(60_000)
  const params = { manifest: { uuid: 'img', notes: script }, prepare_image_script: script }
  fleet.command('vm', VM, 'create_image', { task_id: taskId(50), params })
  for (let n = 51; n < 60; n++) fleet.command('vm', VM, 'create_image', { task_id: taskId(n), params })
  const bytes = JSON.stringify({ ...fleet.record('vm', VM), outbox: [] }).length
  assert.ok(bytes < 16_384, `${bytes} bytes`)
  fleet.settle()
  assert.is(fleet.tasks.get(taskId(50))?.params?.['prepare_image_script'], script)
  assert.is(fleet.tasks.get(taskId(59))?.params?.['prepare_image_script'], script)
})

test.run()
