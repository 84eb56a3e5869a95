/** What a compute node decides of its jobs: each step's success, failure, deadline and cancel; drain and pause; `rebooting`. */
import * as assert from 'uvu/assert'
import type { ErrorCode } from '../../actors/contract/errors.ts'
import type { Reply } from '../../actors/contract/record.ts'
import { suite } from '../suite.ts'
import { type Fleet, makeFleet, SERVER, specOf, taskId, VM } from './fleet.ts'
import {
  BOOT_S,
  boot,
  contextOf,
  doStep,
  JOB,
  JOB_NAMES,
  JOBS,
  nodeFleet,
  OTHER_JOB,
  RESULTS,
  runTo,
  startJob,
  stepOf,
  taskOf,
} from './job-fleet.ts'

const test = suite('jobs of a compute node')
const minute = 60_000

const bodyOf = (fleet: Fleet, uuid = JOB) => fleet.jobs.get(uuid)!
const codeOf = (reply: Reply) => ('error' in reply ? reply.error.code : undefined)
const nop = (fleet: Fleet, n: number, more = {}) =>
  fleet.command('cn', SERVER, 'task_add', { task_id: taskId(n), task: 'nop', params: {}, ...more })
const finishNop = (fleet: Fleet, n: number) => {
  fleet.agent(SERVER, { id: taskId(n), status: 'accepted' })
  fleet.agent(SERVER, { id: taskId(n), status: 'complete' })
}

/** Nothing is left of a job that is over, and the node takes tasks. */
function atRest(fleet: Fleet): void {
  fleet.settle()
  const { outbox, timers } = fleet.record('cn', SERVER)
  const { job, open, transitional_status, setting_up } = contextOf(fleet)
  assert.equal([outbox, timers, open, job, transitional_status], [[], {}, {}, undefined, undefined])
  assert.is.not(setting_up, true)
  assert.equal(
    [...fleet.tasks.values()].filter(({ status }) => status === 'active'),
    [],
  )
  nop(fleet, 900)
  fleet.settle()
  assert.is(fleet.tasks.get(taskId(900))?.status, 'active')
}

function failedWith(fleet: Fleet, step: string, code: ErrorCode, execution = 'failed'): void {
  const { chain_results, error, ...body } = bodyOf(fleet)
  assert.equal([body.execution, error?.code], [execution, code])
  assert.equal([chain_results.at(-1)?.name, chain_results.at(-1)?.error?.code], [step, code])
  assert.ok(body.finished_at && body.elapsed !== undefined)
}

for (const name of JOB_NAMES) {
  const { chain } = JOBS[name]

  test(`${name} goes through ${chain.join(', ')}, each once`, () => {
    const fleet = nodeFleet({ setup: false })
    assert.equal(startJob(fleet, name), { value: { job_uuid: JOB } })
    assert.equal([bodyOf(fleet).execution, bodyOf(fleet).chain], ['running', chain])
    runTo(fleet)
    const body = bodyOf(fleet)
    assert.equal([body.execution, body.error], ['succeeded', undefined])
    assert.equal(
      body.chain_results.map(step => step.name),
      chain,
    )
    assert.ok(body.chain_results.every(({ started_at, finished_at }) => started_at && finished_at))
    assert.is(new Set(fleet.offers).size, fleet.offers.length)
    assert.equal(
      body.chain_results.flatMap(({ task_id }) => task_id ?? []),
      fleet.offers,
    )
    atRest(fleet)
  })

  for (const step of chain) {
    test(`${name} canceled at ${step} is over, and takes back what it must`, () => {
      const fleet = nodeFleet({ setup: false })
      if (step === 'drain') nop(fleet, 1)
      startJob(fleet, name)
      runTo(fleet, step)
      // Changes of the record are made at once: no command meets a job there.
      if (!contextOf(fleet).job) return
      const id = taskOf(fleet)
      if (id) fleet.agent(SERVER, { id, status: 'accepted' })
      assert.equal(fleet.command('cn', SERVER, 'job_cancel', { job_uuid: JOB }), { value: {} })
      failedWith(fleet, step, 'JobCanceled', 'canceled')
      if (step === 'drain') finishNop(fleet, 1)
      atRest(fleet)
      if (id) {
        assert.is(fleet.tasks.get(id)?.error?.code, 'TaskCancelled')
        assert.equal(fleet.cancels, [id], 'its agent is told to stop')
      }
      const before = JSON.stringify(bodyOf(fleet))
      fleet.command('cn', SERVER, 'job_cancel', { job_uuid: JOB })
      assert.is(JSON.stringify(bodyOf(fleet)), before, 'twice is once')
    })

    test(`${name} ends by a deadline at ${step} whoever is silent`, () => {
      for (const accepts of [false, true]) {
        const fleet = nodeFleet({ setup: false })
        if (step === 'drain') nop(fleet, 1, { held: true })
        startJob(fleet, name)
        runTo(fleet, step)
        if (!contextOf(fleet).job) continue
        const id = taskOf(fleet)
        if (id && accepts) fleet.agent(SERVER, { id, status: 'accepted' })
        const limitMs = step === 'drain' ? 15 * minute : step === 'boot' ? 30 * minute : 63 * minute
        fleet.advance(limitMs - (id ? 0 : 1), { agentListens: false })
        if (!id) assert.is(bodyOf(fleet).execution, 'running', 'not before its limit')
        fleet.advance(1, { agentListens: false })
        failedWith(fleet, step, id ? (accepts ? 'TaskTimedOut' : 'AgentNotConnected') : 'JobTimedOut')
        if (step === 'drain') {
          fleet.command('cn', SERVER, 'task_fail', { task_id: taskId(1), code: 'TaskCancelled', message: '' })
        }
        atRest(fleet)
      }
    })

    test(`${name} fails with the task of ${step}`, () => {
      const fleet = nodeFleet({ setup: false })
      startJob(fleet, name)
      runTo(fleet, step)
      const id = taskOf(fleet)
      if (!id) return
      fleet.settle()
      fleet.agent(SERVER, { id, status: 'accepted' })
      fleet.agent(SERVER, { id, status: 'failure', error: { code: 'HypervisorError', message: 'it broke' } })
      failedWith(fleet, step, 'HypervisorError')
      atRest(fleet)
    })
  }

  test(`${name} that runs answers whoever asks for it again, and refuses another`, () => {
    const fleet = nodeFleet({ setup: false })
    // A drain waits for it; the other jobs have their first task.
    nop(fleet, 1)
    startJob(fleet, name)
    const before = fleet.record('cn', SERVER)
    assert.equal(startJob(fleet, name, JOBS[name].params, OTHER_JOB), { value: { job_uuid: JOB } })
    for (const other of JOB_NAMES.filter(one => one !== name)) {
      assert.is(codeOf(startJob(fleet, other, JOBS[other].params, OTHER_JOB)), 'JobRunning')
    }
    assert.is(fleet.record('cn', SERVER), before)
    assert.equal([...fleet.jobs.keys()], [JOB])
    fleet.command('cn', SERVER, 'silent')
    assert.equal(startJob(fleet, name, JOBS[name].params, OTHER_JOB), { value: { job_uuid: JOB } })
  })

  test(`${name} does not begin on a node that is not running`, () => {
    const fleet = nodeFleet()
    fleet.command('cn', SERVER, 'silent')
    assert.is(codeOf(startJob(fleet, name)), 'ServerNotRunning')
    assert.is(codeOf(startJob(makeFleet(), name)), 'ResourceNotFound')
    assert.is(fleet.jobs.size, 0)
  })
}

test('an update of other NICs than the one that runs is refused, not dropped', () => {
  const fleet = nodeFleet()
  startJob(fleet, 'server-update-nics')
  const other = { ...JOBS['server-update-nics'].params, action: 'delete' }
  assert.is(codeOf(startJob(fleet, 'server-update-nics', other, OTHER_JOB)), 'JobRunning')
})

test('setup leaves out what it was not asked for', () => {
  const fleet = nodeFleet({ setup: false })
  startJob(fleet, 'server-setup', {})
  assert.equal(bodyOf(fleet).chain, ['check', 'storage', 'sysinfo', 'record'])
})

test('setup names the node at once, says that it is setting up, and ends with setup', () => {
  const fleet = nodeFleet({ setup: false })
  startJob(fleet, 'server-setup')
  const { hostname, setting_up, setup } = contextOf(fleet)
  assert.equal([hostname, setting_up, setup], ['node7', true, false])
  runTo(fleet)
  assert.equal([contextOf(fleet).setup, contextOf(fleet).setting_up], [true, false])
  assert.equal(contextOf(fleet).ram, 4096)
})

test('a pool alone makes no server set up: not while a job works on it, and not after one that failed', () => {
  const fleet = nodeFleet({ setup: false })
  startJob(fleet, 'server-setup')
  runTo(fleet, 'nics')
  boot(fleet, BOOT_S, { Setup: true })
  assert.is(contextOf(fleet).setup, false)
  fleet.command('cn', SERVER, 'job_cancel', { job_uuid: JOB })
  boot(fleet, BOOT_S, { Setup: true })
  assert.is(contextOf(fleet).setup, false)
  startJob(fleet, 'server-setup', {}, OTHER_JOB)
  runTo(fleet)
  boot(fleet, BOOT_S, { Setup: true })
  assert.is(contextOf(fleet).setup, true)
  boot(fleet, BOOT_S, { Setup: false })
  assert.is(contextOf(fleet).setup, false, 'from then on the node is believed')
})

test('what a setup is asked to run is shown to nobody', () => {
  const fleet = nodeFleet({ setup: false })
  startJob(fleet, 'server-setup')
  runTo(fleet)
  assert.not.match(JSON.stringify(bodyOf(fleet)), /s3cret/)
  const script = fleet.offers.map(id => fleet.tasks.get(id)).find(task => task?.task === 'server_run_script')
  assert.equal(script?.params, { script: 'echo s3cret' })
})

test('a setup fails where a check fails that it cannot mend, and where its script does', () => {
  const cases = [
    ['check', 'server_check', { checks: [{ name: 'reboot', ok: false, message: 'no systemd' }] }, 'ServerCheckFailed'],
    ['script', 'server_run_script', { exit_code: 3, stdout: '', stderr: 'no' }, 'ScriptFailed'],
    ['script', 'server_run_script', { exit_code: null, stdout: '', stderr: '' }, 'ScriptFailed'],
  ] as const
  for (const [step, task, result, code] of cases) {
    const fleet = nodeFleet({ setup: false })
    startJob(fleet, 'server-setup')
    runTo(fleet, step)
    const id = taskOf(fleet)!
    assert.is(fleet.tasks.get(id)?.task, task)
    fleet.agent(SERVER, { id, status: 'accepted' })
    fleet.agent(SERVER, { id, status: 'complete', result })
    failedWith(fleet, step, code)
    assert.equal([contextOf(fleet).setup, contextOf(fleet).setting_up], [false, false])
    atRest(fleet)
  }
})

test('the sysinfo that a task tells is registered, in a job or not, but none of another node', () => {
  const fleet = nodeFleet()
  const tell = (n: number, sysinfo: Record<string, unknown>) => {
    const order = { task_id: taskId(n), task: 'server_sysinfo', params: {} }
    fleet.command('cn', SERVER, 'task_add', order)
    fleet.agent(SERVER, { id: taskId(n), status: 'accepted' })
    fleet.agent(SERVER, { id: taskId(n), status: 'complete', result: { sysinfo } })
  }
  tell(1, { UUID: SERVER, Setup: true, 'MiB of Memory': 8192 })
  assert.is(contextOf(fleet).ram, 8192)
  tell(2, { UUID: VM, Setup: true, 'MiB of Memory': 1 })
  assert.is(contextOf(fleet).ram, 8192)
})

test('a drain waits for what is open, lets nothing new in but the job, and the node is open again after the boot', () => {
  const fleet = nodeFleet()
  nop(fleet, 1)
  startJob(fleet, 'server-reboot')
  fleet.settle()
  assert.is(stepOf(fleet), 'drain')
  assert.equal(nop(fleet, 2), { value: { id: taskId(2) } })
  const refused = fleet.tasks.get(taskId(2))
  assert.equal(
    [refused?.status, refused?.error],
    ['failure', { code: 'AgentPaused', message: 'CN Agent is not accepting tasks for maintenance' }],
  )
  finishNop(fleet, 1)
  assert.is(stepOf(fleet), 'reboot')
  const reboot = fleet.tasks.get(taskOf(fleet)!)
  assert.equal([reboot?.task, reboot?.status], ['server_reboot', 'active'])
  doStep(fleet)
  assert.is(stepOf(fleet), 'boot')
  nop(fleet, 3)
  assert.is(fleet.tasks.get(taskId(3))?.error?.code, 'AgentPaused')
  doStep(fleet)
  atRest(fleet)
})

test('a VM hears of a task that its paused node refuses, in its turn or waiting for it', () => {
  const fleet = nodeFleet()
  fleet.command('vm', VM, 'create', { server_uuid: SERVER, task_id: taskId(1), spec: specOf(VM) })
  fleet.settle()
  finishNop(fleet, 1)
  fleet.command('cn', SERVER, 'pause')
  fleet.command('vm', VM, 'reported', {
    server_uuid: SERVER,
    seen_at: fleet.now + 1,
    vm: { uuid: VM, state: 'running' },
  })
  fleet.command('vm', VM, 'stop', { task_id: taskId(2), params: {} })
  fleet.command('vm', VM, 'reboot', { task_id: taskId(3), params: {} })
  fleet.settle()
  const { operation, waiting } = fleet.record('vm', VM).snapshot.context as { operation?: unknown; waiting?: unknown }
  assert.equal([fleet.record('vm', VM).state, operation, waiting], ['running', null, []])
  for (const n of [2, 3]) assert.is(fleet.tasks.get(taskId(n))?.error?.code, 'AgentPaused')
})

test('an operator pauses and resumes a node, and twice is once; what is open goes on', () => {
  const fleet = nodeFleet()
  nop(fleet, 1)
  for (const _ of [1, 2]) assert.equal(fleet.command('cn', SERVER, 'pause'), { value: {} })
  nop(fleet, 2)
  assert.equal([fleet.tasks.get(taskId(1))?.status, fleet.tasks.get(taskId(2))?.status], ['active', 'failure'])
  fleet.agent(SERVER, { id: taskId(1), status: 'accepted' })
  fleet.agent(SERVER, { id: taskId(1), status: 'complete' })
  assert.is(fleet.tasks.get(taskId(1))?.status, 'complete')
  for (const _ of [1, 2]) assert.equal(fleet.command('cn', SERVER, 'resume'), { value: {} })
  nop(fleet, 3)
  assert.is(fleet.tasks.get(taskId(3))?.status, 'active')
})

test('an operator who had paused a node finds it paused after a drained reboot', () => {
  const fleet = nodeFleet()
  fleet.command('cn', SERVER, 'pause')
  startJob(fleet, 'server-reboot')
  runTo(fleet)
  assert.is(bodyOf(fleet).execution, 'succeeded')
  nop(fleet, 1)
  assert.is(fleet.tasks.get(taskId(1))?.error?.code, 'AgentPaused')
})

test('a paused node holds no room for VMs', () => {
  const fleet = nodeFleet()
  fleet.command('cn', SERVER, 'pause')
  const claim = {
    claim_id: taskId(1),
    vm_uuid: VM,
    owner_uuid: VM,
    brand: 'kvm',
    ram: 1,
    until: fleet.now + 1000,
    seen: 0,
  }
  assert.is(codeOf(fleet.command('cn', SERVER, 'claim', claim)), 'ServerNotRunning')
})

test('rebooting is in the very commit that offers the reboot, and shown while the node is silent', () => {
  const fleet = nodeFleet()
  startJob(fleet, 'server-reboot', { drain: false })
  const { outbox, status } = fleet.record('cn', SERVER)
  assert.equal([outbox.map(({ effect }) => effect.type), status], [['offer'], 'running'])
  assert.is(contextOf(fleet).transitional_status, 'rebooting')
  doStep(fleet)
  fleet.command('cn', SERVER, 'silent')
  assert.equal([fleet.record('cn', SERVER).state, fleet.record('cn', SERVER).status], ['unknown', 'rebooting'])
  fleet.command('cn', SERVER, 'heard')
  assert.equal([stepOf(fleet), fleet.record('cn', SERVER).status], ['boot', 'running'])
  fleet.command('cn', SERVER, 'silent')
  assert.is(fleet.record('cn', SERVER).status, 'rebooting', 'a beat is no boot')
  boot(fleet, BOOT_S + 100)
  assert.equal([fleet.record('cn', SERVER).status, bodyOf(fleet).execution], ['running', 'succeeded'])
})

test('a boot time that moves with the clock is not a boot', () => {
  const fleet = nodeFleet()
  startJob(fleet, 'server-reboot', { drain: false })
  doStep(fleet)
  boot(fleet, BOOT_S + 2)
  assert.is(stepOf(fleet), 'boot')
  boot(fleet, BOOT_S + 60)
  assert.is(bodyOf(fleet).execution, 'succeeded')
})

/** A reboot of a node whose agent had told this id of its boot, asked for and done; the node is not back yet. */
function rebooting(bootId: string | undefined) {
  const fleet = nodeFleet()
  boot(fleet, BOOT_S, idOf(bootId))
  startJob(fleet, 'server-reboot', { drain: false })
  doStep(fleet)
  assert.is(stepOf(fleet), 'boot')
  return fleet
}
const idOf = (id: string | undefined) => (id === undefined ? {} : { 'Boot Id': id })

test('another boot is told by its id, however soon it comes; what one side does not know says nothing', () => {
  const cases: [string | undefined, string | undefined, number, boolean][] = [
    // Two boots less than the slack of clocks apart, as those of containers are.
    ['a', 'b', 0, true],
    ['a', 'b', 2, true],
    ['a', 'b', -60, true],
    ['a', 'a', 2, false],
    // The id of some containers is that of their machine.
    ['a', 'a', 60, true],
    // Agents that tell none, before, after (one was installed meanwhile), or ever.
    [undefined, 'b', 2, false],
    [undefined, 'b', 60, true],
    ['a', undefined, 2, false],
    ['a', undefined, 60, true],
    [undefined, undefined, 2, false],
    [undefined, undefined, 60, true],
  ]
  for (const [before, now, laterS, isOther] of cases) {
    const fleet = rebooting(before)
    boot(fleet, BOOT_S + laterS, idOf(now))
    assert.is(bodyOf(fleet).execution, isOther ? 'succeeded' : 'running', `${before} -> ${now}, ${laterS} s later`)
    assert.is(contextOf(fleet).boot_id, now, 'that of the last sysinfo, or none')
  }
})

test('an id that an earlier agent told does not make a boot of a later one', () => {
  const fleet = nodeFleet()
  boot(fleet, BOOT_S, idOf('a'))
  boot(fleet, BOOT_S)
  startJob(fleet, 'server-reboot', { drain: false })
  boot(fleet, BOOT_S, idOf('b'))
  doStep(fleet)
  assert.is(stepOf(fleet), 'boot')
})

test('without a job, an id that is another ends rebooting, though the boot began in the same second', () => {
  const fleet = nodeFleet()
  boot(fleet, BOOT_S, idOf('a'))
  for (const [id, status] of [
    ['a', 'rebooting'],
    ['b', undefined],
  ] as const) {
    fleet.command('cn', SERVER, 'update', { transitional_status: 'rebooting' })
    boot(fleet, BOOT_S, idOf(id))
    assert.is(contextOf(fleet).transitional_status, status)
  }
})

test('a node that was gone before it could say so has done its reboot when it is back', () => {
  const fleet = nodeFleet()
  startJob(fleet, 'server-reboot', { drain: false })
  fleet.settle()
  const id = taskOf(fleet)!
  fleet.agent(SERVER, { id, status: 'accepted' })
  fleet.command('cn', SERVER, 'silent')
  boot(fleet, BOOT_S + 100)
  assert.equal([bodyOf(fleet).execution, fleet.tasks.get(id)?.status], ['succeeded', 'complete'])
  assert.equal(fleet.agent(SERVER, { id, status: 'accepted' }), { value: { go: false } }, 'it is not done again')
  atRest(fleet)
})

test('without a job, rebooting lasts until the node is heard again or tells another boot time', () => {
  for (const back of ['heard', 'register'] as const) {
    const fleet = nodeFleet()
    fleet.command('cn', SERVER, 'update', { transitional_status: 'rebooting' })
    boot(fleet, BOOT_S)
    assert.is(contextOf(fleet).transitional_status, 'rebooting', 'the same boot time says nothing')
    fleet.command('cn', SERVER, 'silent')
    assert.is(fleet.record('cn', SERVER).status, 'rebooting')
    if (back === 'heard') fleet.command('cn', SERVER, 'heard')
    else boot(fleet, BOOT_S)
    assert.is(contextOf(fleet).transitional_status, undefined)
  }
  const fleet = nodeFleet()
  fleet.command('cn', SERVER, 'update', { transitional_status: 'rebooting' })
  boot(fleet, BOOT_S + 100)
  assert.is(contextOf(fleet).transitional_status, undefined)
})

test('a factory reset ends with a server that is not set up', () => {
  const fleet = nodeFleet()
  startJob(fleet, 'server-factory-reset')
  nop(fleet, 1)
  assert.is(fleet.tasks.get(taskId(1))?.error?.code, 'AgentPaused', 'nothing new begins on it')
  runTo(fleet)
  assert.equal([bodyOf(fleet).execution, contextOf(fleet).setup], ['succeeded', false])
})

test('a job that its server does not run can be ended by its operator all the same', () => {
  for (const lost of ['commit', 'record', 'server'] as const) {
    const fleet = nodeFleet()
    const before = fleet.record('cn', SERVER)
    startJob(fleet, 'server-reboot')
    // The body was written and its commit never made; or the record was removed by hand; or the server was deleted since.
    if (lost === 'commit') fleet.records.set(`cn.${SERVER}`, before)
    else fleet.records.delete(`cn.${SERVER}`)
    if (lost === 'server') {
      boot(fleet, BOOT_S)
      fleet.command('cn', SERVER, 'delete', {})
    }
    assert.is(bodyOf(fleet).execution, 'running')
    assert.equal(fleet.command('cn', SERVER, 'job_cancel', { job_uuid: JOB }), { value: {} })
    const { execution, error, finished_at } = bodyOf(fleet)
    assert.equal([execution, error?.code, typeof finished_at], ['canceled', 'JobCanceled', 'string'])
  }
})

test('a cancel ends no job of another server', () => {
  const fleet = nodeFleet()
  startJob(fleet, 'server-reboot')
  fleet.jobs.set(OTHER_JOB, { ...bodyOf(fleet), uuid: OTHER_JOB, server_uuid: VM })
  fleet.command('cn', SERVER, 'job_cancel', { job_uuid: OTHER_JOB })
  assert.is(fleet.jobs.get(OTHER_JOB)?.execution, 'running')
})

test("the cancel of a job's task ends the job", () => {
  const fleet = nodeFleet()
  startJob(fleet, 'server-update-nics')
  const end = { task_id: taskOf(fleet), code: 'TaskCancelled', message: 'by hand' }
  fleet.command('cn', SERVER, 'task_fail', end)
  failedWith(fleet, 'nics', 'TaskCancelled')
  atRest(fleet)
})

test('a server that is deleted ends its job with its tasks', () => {
  for (const step of ['check', 'storage']) {
    const fleet = nodeFleet({ setup: false })
    startJob(fleet, 'server-setup')
    runTo(fleet, step)
    fleet.command('cn', SERVER, 'delete', {})
    failedWith(fleet, step, 'ServerDeleted')
    assert.equal(
      [...fleet.tasks.values()].filter(({ status }) => status === 'active'),
      [],
    )
  }
  const fleet = nodeFleet()
  startJob(fleet, 'server-reboot')
  runTo(fleet, 'boot')
  fleet.command('cn', SERVER, 'delete', {})
  failedWith(fleet, 'boot', 'ServerDeleted')
  assert.not.ok('job' in fleet.record('cn', SERVER).timers)
})

test('a job of a step that this release does not know ends', () => {
  const fleet = nodeFleet()
  startJob(fleet, 'server-reboot', { drain: false })
  const record = fleet.record('cn', SERVER)
  const job = contextOf(fleet).job!
  job.chain = [...job.chain.slice(0, 2), 'polish']
  fleet.records.set(`cn.${SERVER}`, record)
  runTo(fleet)
  failedWith(fleet, 'polish', 'InternalError')
  atRest(fleet)
})

test('an operator who cancels a task at work has its agent told at once; one that ended by itself is told nothing', () => {
  const fleet = nodeFleet()
  for (const n of [1, 2, 3]) nop(fleet, n)
  fleet.settle()
  for (const n of [1, 2]) fleet.agent(SERVER, { id: taskId(n), status: 'accepted' })
  fleet.agent(SERVER, { id: taskId(2), status: 'complete', result: RESULTS['nop'] ?? {} })
  for (const n of [1, 2, 3]) {
    fleet.command('cn', SERVER, 'task_fail', { task_id: taskId(n), code: 'TaskCancelled', message: 'by hand' })
  }
  fleet.settle()
  assert.equal(fleet.cancels, [taskId(1)])
})

test.run()
