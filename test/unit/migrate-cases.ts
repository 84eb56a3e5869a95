/**
 * Cases of a migration's steps for the suite of all tasks: each step alone, on the node it is asked of. The disks that a source sends go
 * to a second VM of the same node. How the steps follow one another is held by test/integration/migration.test.ts.
 */
import { randomUUID } from 'node:crypto'
import { createConnection } from 'node:net'
import * as assert from 'uvu/assert'
import type { DiskDigest } from '../../actors/contract/migration.ts'
import type { VmSpec } from '../../actors/contract/vm.ts'
import { offerLive } from '../../hypervisor-agent/streams/live.ts'
import { connectStream } from '../../hypervisor-agent/streams/streams.ts'
import {
  another,
  arrived,
  arrivedWhole,
  cookies,
  defined,
  departed,
  digestsOf,
  disks,
  expected,
  expectedLive,
  filled,
  gone,
  guest,
  hasDeparted,
  held,
  hypervisorOf,
  isHeldBy,
  isNotWhole,
  isStopped,
  isWhole,
  migration,
  received,
  roomMade,
  running,
  runningWith,
  runsOn,
  runsOnUnnoticed,
  send,
  stateOf,
  step,
  target,
  text,
  token,
} from './migrate-scenes.ts'
import type { Case, Scene } from './task-suite.ts'

const examineCases: Case[] = [
  {
    task: 'machine_migrate_examine',
    name: 'says what there is to move, and leaves it running',
    prepare: running,
    params: step,
    check: async (scene, end) => {
      const { found } = end.result as { found: { spec: VmSpec } }
      const { uuid, name, memory_mib, autoboot } = scene.spec
      const { spec } = found
      assert.equal([spec.uuid, spec.name, spec.memory_mib, spec.autoboot], [uuid, name, memory_mib, autoboot])
      assert.equal(
        spec.disks.map(disk => disk.size_mib),
        disks.map(disk => disk.size_mib),
      )
      assert.is(stateOf(end), 'running')
      await runsOn(scene)
    },
  },
  {
    task: 'machine_migrate_examine',
    name: 'refuses a VM with snapshots',
    prepare: async scene => {
      await running(scene)
      await hypervisorOf(scene).createSnapshot(scene.spec.uuid, { name: 'kept', taskId: randomUUID() })
    },
    params: step,
    failure: 'SnapshotsExist',
    check: runsOn,
  },
  {
    task: 'machine_migrate_examine',
    name: 'refuses a VM whose definition is not of Muster\u2019s making',
    prepare: async scene => {
      await running(scene)
      hypervisorOf(scene).faults.add({ call: 'shapeOf', fail: 'InvalidArgument' })
    },
    params: step,
    failure: 'MigrationNotSupported',
    check: runsOn,
  },
  {
    task: 'machine_migrate_examine',
    name: 'of a VM that is not there fails',
    params: step,
    failure: 'VmNotFound',
    check: gone,
  },
  {
    task: 'machine_migrate_examine',
    name: 'of a stopped VM that is to be moved live fails',
    prepare: defined,
    params: scene => ({ ...step(scene), live: true }),
    failure: 'VmNotRunning',
    check: isStopped,
  },
]

const receiveCases: Case[] = [
  {
    task: 'machine_migrate_receive',
    name: 'makes a VM that cannot be started, and a stream that fills it',
    params: scene => {
      scene.spec = { ...scene.spec, disks }
      return { ...step(scene), spec: scene.spec, token }
    },
    check: async (scene, end) => {
      const made = guest(scene)
      assert.equal([made?.task_id, made?.spec.autoboot, made?.spec.disks.length], [migration, false, disks.length])
      await isNotWhole(scene)
      await filled(scene, (end.result as { found: { stream: { host: string; port: number } } }).found.stream)
      assert.is(hypervisorOf(scene).world.content(scene.spec.uuid).disk, text)
    },
  },
  {
    task: 'machine_migrate_receive',
    name: 'live makes a VM that cannot be started, and a stream that takes the offer of one that runs',
    params: scene => {
      scene.spec = { ...scene.spec, disks }
      return { ...step(scene), spec: scene.spec, token, live: true }
    },
    check: async (scene, end) => {
      await isNotWhole(scene)
      const { stream } = (end.result as { found: { stream: { host: string; port: number } } }).found
      const socket = await connectStream({ ...stream, token }, createConnection, new AbortController().signal)
      assert.equal(await offerLive(socket, { definition: '', cookie: '' }), { cookie: '' })
    },
  },
  {
    task: 'machine_migrate_receive',
    name: 'of a VM that exists fails and leaves that VM alone',
    prepare: running,
    params: scene => ({ ...step(scene), spec: scene.spec, token }),
    failure: 'VmExists',
    check: async scene => {
      assert.is(guest(scene)?.task_id, another)
      await runsOn(scene)
    },
  },
  {
    task: 'machine_migrate_receive',
    name: 'without room for its disks makes nothing',
    params: scene => ({ ...step(scene), spec: { ...scene.spec, disks: [{ size_mib: 2 ** 26 }] }, token }),
    failure: 'InsufficientStorage',
    check: gone,
  },
]

const sendCases: Case[] = [
  {
    task: 'machine_migrate_send',
    name: 'holds the VM and streams its disks',
    prepare: async scene => {
      await defined(scene)
      await expected(scene)
    },
    params: send,
    // The token opens the stream once: an agent that dies over it cannot go on, and must say so.
    brokenOff: 'MigrationInterrupted',
    check: async (scene, end) => {
      await isHeldBy(migration)(scene)
      if (end.status === 'failure') return
      const { found } = end.result as { found: { disks: DiskDigest[] } }
      assert.equal(found.disks, await digestsOf(scene, target(scene).uuid))
      assert.is(hypervisorOf(scene).world.content(target(scene).uuid).disk, text)
    },
  },
  {
    task: 'machine_migrate_send',
    name: 'live holds the guest and copies it, and it stands still',
    prepare: async scene => {
      await runningWith(scene)
      await expectedLive(scene)
    },
    params: scene => ({ ...send(scene), live: true }),
    brokenOff: 'MigrationInterrupted',
    check: async (scene, end) => {
      assert.is(guest(scene)?.held?.by, migration)
      if (end.status === 'failure') return
      await hasDeparted(scene)
      const { found } = end.result as { found: { cookie: string } }
      await hypervisorOf(scene).finishLive(target(scene).uuid, found.cookie)
      assert.is(hypervisorOf(scene).world.content(target(scene).uuid).memory, text)
    },
  },
  {
    task: 'machine_migrate_send',
    name: 'live to a node without room for its memory fails, says so, and the guest runs on',
    prepare: async scene => {
      await runningWith(scene)
      await expectedLive(scene)
      hypervisorOf(scene).faults.add({ call: 'prepareLive', fail: 'InsufficientMemory' })
    },
    params: scene => ({ ...send(scene), live: true }),
    failure: 'InsufficientMemory',
    brokenOff: 'MigrationInterrupted',
    check: async (scene, end) => {
      if (end.error?.code === 'InsufficientMemory') assert.match(end.error.message, /the other server/)
      assert.is(guest(scene)?.state, 'running')
    },
  },
  {
    task: 'machine_migrate_send',
    name: 'live of a stopped VM fails',
    prepare: async scene => {
      await defined(scene)
      await expectedLive(scene)
    },
    params: scene => ({ ...send(scene), live: true }),
    failure: 'VmNotRunning',
    check: isStopped,
  },
  {
    task: 'machine_migrate_send',
    name: 'to a stream that knows another token fails, and the VM stays held',
    prepare: async scene => {
      await defined(scene)
      await expected(scene)
    },
    params: scene => ({ ...send(scene), token: 'b2'.repeat(32) }),
    failure: 'MigrationInterrupted',
    check: async scene => {
      await isHeldBy(migration)(scene)
      assert.is.not(hypervisorOf(scene).world.content(target(scene).uuid).disk, text)
    },
  },
  {
    task: 'machine_migrate_send',
    name: 'of a running VM fails and lets it run',
    prepare: async scene => {
      await running(scene)
      await expected(scene)
    },
    params: send,
    failure: 'VmNotStopped',
    check: runsOn,
  },
  {
    task: 'machine_migrate_send',
    name: 'of a VM that another migration holds fails and leaves it so',
    prepare: async scene => {
      await held(scene, another)
      await expected(scene)
    },
    params: send,
    failure: 'VmBusy',
    check: isHeldBy(another),
  },
]

const adoptCases: Case[] = [
  {
    task: 'machine_migrate_adopt',
    name: 'makes a VM whole whose disks are what was sent, and does not start it',
    prepare: received,
    params: scene => ({ ...step(scene), disks: arrived.get(scene) }),
    check: isWhole,
  },
  {
    task: 'machine_migrate_adopt',
    name: 'of a disk that is another than was sent fails, and the VM is not whole',
    prepare: received,
    params: scene => ({
      ...step(scene),
      disks: arrived.get(scene)?.map((disk, n) => (n === 0 ? disk : { ...disk, sha256: 'c3'.repeat(32) })),
    }),
    failure: 'MigrationCorrupted',
    check: isNotWhole,
  },
  {
    task: 'machine_migrate_adopt',
    name: 'of a disk that is shorter than was sent fails, and the VM is not whole',
    prepare: received,
    params: scene => ({
      ...step(scene),
      disks: arrived.get(scene)?.map(disk => ({ ...disk, bytes: disk.bytes + 1 })),
    }),
    failure: 'MigrationCorrupted',
    check: isNotWhole,
  },
  {
    task: 'machine_migrate_adopt',
    name: 'of a VM that this migration did not make fails and leaves it alone',
    prepare: received,
    params: scene => ({ ...step(scene), migration: another, disks: arrived.get(scene) }),
    failure: 'VmNotFound',
    check: isNotWhole,
  },
]

const startCases: Case[] = [
  {
    task: 'machine_migrate_start',
    name: 'starts what has arrived, once',
    prepare: arrivedWhole,
    params: step,
    check: async (scene, end) => {
      await runsOn(scene)
      assert.is(stateOf(end), 'running')
    },
  },
  {
    task: 'machine_migrate_start',
    name: 'lets a guest go on that has come running, with what its memory held',
    prepare: roomMade,
    params: scene => ({ ...step(scene), cookie: cookies.get(scene) }),
    check: async (scene, end) => {
      await runsOnUnnoticed(scene)
      assert.equal([guest(scene)?.incoming, stateOf(end)], [false, 'running'])
    },
  },
  {
    task: 'machine_migrate_start',
    name: 'of a guest that has not arrived fails, and it does not run',
    prepare: received,
    params: scene => ({ ...step(scene), cookie: '' }),
    failure: 'MigrationInterrupted',
    check: isNotWhole,
  },
  {
    task: 'machine_migrate_start',
    name: 'of a VM that does not stay up fails',
    prepare: async scene => {
      await arrivedWhole(scene)
      hypervisorOf(scene).onChange(({ uuid, what }) => {
        if (what === 'started' && uuid !== undefined) hypervisorOf(scene).world.crash(uuid)
      })
    },
    params: step,
    failure: 'TaskFailed',
    check: async (scene, end) => {
      assert.match(end.error?.message ?? '', /did not stay up/)
      assert.is.not(guest(scene)?.state, 'running')
    },
  },
  {
    task: 'machine_migrate_start',
    name: 'of a VM that is not whole fails',
    prepare: received,
    params: step,
    failure: 'VmBusy',
    check: isNotWhole,
  },
  {
    task: 'machine_migrate_start',
    name: 'of a VM that this migration did not make fails and does not start it',
    prepare: defined,
    params: step,
    failure: 'VmNotFound',
    check: isStopped,
  },
]

const finishCases: Case[] = [
  ...[true, false].map(
    (autoboot): Case => ({
      task: 'machine_migrate_finish',
      name: autoboot ? 'has the VM start with its node' : 'leaves a VM alone that did not start with its node',
      prepare: async scene => {
        scene.spec = { ...scene.spec, autoboot: false }
        await running(scene, migration)
      },
      params: scene => ({ ...step(scene), autoboot }),
      check: async (scene, end) => {
        assert.equal([guest(scene)?.spec.autoboot, stateOf(end)], [autoboot, 'running'])
        await runsOn(scene)
      },
    }),
  ),
  {
    task: 'machine_migrate_finish',
    name: 'of a VM that is not there fails',
    params: scene => ({ ...step(scene), autoboot: true }),
    failure: 'VmNotFound',
    check: gone,
  },
]

const removeCases: Case[] = [
  {
    task: 'machine_migrate_remove',
    name: 'removes the copy of a guest that has gone on elsewhere',
    prepare: departed,
    params: step,
    check: gone,
  },
  {
    task: 'machine_migrate_remove',
    name: 'removes the copy that is held for this migration',
    prepare: held,
    params: step,
    check: gone,
  },
  {
    task: 'machine_migrate_remove',
    name: 'leaves a VM alone that nobody holds',
    prepare: running,
    params: step,
    check: runsOn,
  },
  {
    task: 'machine_migrate_remove',
    name: 'leaves a VM alone that another migration holds',
    prepare: scene => held(scene, another),
    params: step,
    check: isHeldBy(another),
  },
  { task: 'machine_migrate_remove', name: 'of a VM that is not there is success', params: step, check: gone },
]

const discard = (scene: Scene) => ({ ...step(scene), token })
const discardCases: Case[] = [
  {
    task: 'machine_migrate_discard',
    name: 'removes what is not whole yet',
    prepare: received,
    params: discard,
    check: gone,
  },
  {
    task: 'machine_migrate_discard',
    name: 'removes what this migration made and started',
    prepare: scene => running(scene, migration),
    params: discard,
    check: gone,
  },
  {
    task: 'machine_migrate_discard',
    name: 'leaves one alone that runs where that is not to be undone, makes it whole and says so',
    prepare: async scene => {
      await roomMade(scene)
      await hypervisorOf(scene).finishLive(scene.spec.uuid, cookies.get(scene) ?? '')
    },
    params: scene => ({ ...discard(scene), unless_running: true }),
    check: async (scene, end) => {
      await runsOnUnnoticed(scene)
      const { found } = end.result as { found?: object }
      assert.equal([guest(scene)?.incoming, stateOf(end), found], [false, 'running', { arrived: true }])
    },
  },
  {
    task: 'machine_migrate_discard',
    name: 'removes one that has come and does not run, also where a running one would be kept',
    prepare: roomMade,
    params: scene => ({ ...discard(scene), unless_running: true }),
    check: gone,
  },
  {
    task: 'machine_migrate_discard',
    name: 'leaves a VM alone that it did not make',
    prepare: running,
    params: discard,
    check: runsOn,
  },
  { task: 'machine_migrate_discard', name: 'of a VM that is not there is success', params: discard, check: gone },
]

const releaseCases: Case[] = [
  {
    task: 'machine_migrate_release',
    name: 'gives a VM back that ran, and it runs, once, and starts with its node again',
    prepare: held,
    params: scene => ({ ...step(scene), start: true }),
    check: async (scene, end) => {
      await runsOn(scene)
      assert.equal([guest(scene)?.spec.autoboot, stateOf(end)], [true, 'running'])
    },
  },
  {
    task: 'machine_migrate_release',
    name: 'lets a guest go on that was copied and stands still, with what its memory holds',
    prepare: departed,
    params: scene => ({ ...step(scene), start: false, live: true }),
    check: async (scene, end) => {
      await runsOnUnnoticed(scene)
      assert.equal([guest(scene)?.spec.autoboot, stateOf(end)], [true, 'running'])
    },
  },
  {
    task: 'machine_migrate_release',
    name: 'leaves a guest off that has powered itself off while it was moved live',
    prepare: async scene => {
      await runningWith(scene)
      await hypervisorOf(scene).holdVm(scene.spec.uuid, migration, { live: true })
      hypervisorOf(scene).world.guestPowersOff(scene.spec.uuid)
    },
    params: scene => ({ ...step(scene), start: false, live: true }),
    check: async (scene, end) => {
      assert.equal([guest(scene)?.state, guest(scene)?.held, stateOf(end)], ['stopped', null, 'stopped'])
    },
  },
  {
    task: 'machine_migrate_release',
    name: 'gives a VM back that was stopped, and leaves it so',
    prepare: held,
    params: scene => ({ ...step(scene), start: false }),
    check: async (scene, end) => {
      await isStopped(scene)
      assert.equal([guest(scene)?.held, guest(scene)?.spec.autoboot, stateOf(end)], [null, true, 'stopped'])
    },
  },
  {
    task: 'machine_migrate_release',
    name: 'of a VM that was not held yet lets it run',
    prepare: running,
    params: scene => ({ ...step(scene), start: true }),
    check: runsOn,
  },
  {
    task: 'machine_migrate_release',
    name: 'of a VM that another migration holds fails and leaves it held',
    prepare: scene => held(scene, another),
    params: scene => ({ ...step(scene), start: true }),
    failure: 'VmBusy',
    check: isHeldBy(another),
  },
  {
    task: 'machine_migrate_release',
    name: 'of a VM that is not there fails',
    params: scene => ({ ...step(scene), start: true }),
    failure: 'VmNotFound',
    check: gone,
  },
]

export const MIGRATE_CASES: Case[] = [
  ...examineCases,
  ...receiveCases,
  ...sendCases,
  ...adoptCases,
  ...startCases,
  ...finishCases,
  ...removeCases,
  ...discardCases,
  ...releaseCases,
]
