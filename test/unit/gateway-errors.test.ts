/** Every row answers as it says: its success, and each error code that its OpenAPI entry documents, with that code's status. */
import * as assert from 'uvu/assert'
import { ERRORS, type ErrorCode, rejection } from '../../actors/contract/errors.ts'
import { VM_VERBS } from '../../actors/contract/vm.ts'
import { derivedIds } from '../../gateway/ids.ts'
import { errorsOf } from '../../gateway/openapi.ts'
import { type AnyRow, changes } from '../../gateway/row.ts'
import { UnavailableError } from '../../services/nats/records.ts'
import { type Answered, type FakeBackend, fakeGateway, SERVER, VM } from '../fake-backend.ts'
import { preparedFor, QUEUE, SAMPLES, type Sample, TICKET, withFleet } from '../gateway-samples.ts'
import { suite } from '../suite.ts'

const test = suite('every row of the route table')

const { rows } = fakeGateway()

test('has a sample request that this suite sends', () => {
  assert.equal(Object.keys(SAMPLES).sort(), rows.map(row => row.name).sort())
})

for (const row of rows) {
  test(`${row.name} succeeds with its documented status`, async () => {
    const { ask } = fakeGateway(preparedFor(row.name))
    const { status, text } = await ask(row.method, sampleOf(row).path, { body: sampleOf(row).body })
    assert.is(status, row.success.status, text)
    if (row.success.status === 204) assert.is(text, '')
  })

  for (const code of errorsOf(row).filter(code => !neverOf(row, code))) {
    test(`${row.name} answers ${code} with ${statusOf(row, code)}`, async () => {
      const seen: string[] = []
      for (const provoke of waysTo(code)) {
        const gateway = fakeGateway(preparedFor(row.name))
        const answer = await provoke({ ...gateway, row, sample: sampleOf(row), code })
        if (!answer) continue
        seen.push(`${answer.status} ${answer.body?.code}`)
        if (answer.body?.code !== code) continue
        assert.is(answer.status, statusOf(row, code))
        assert.is(answer.headers.get('content-type'), 'application/json')
        assert.type(answer.body.message, 'string')
        return
      }
      assert.unreachable(`no way led to ${code}; saw ${seen.join(', ')}`)
    })
  }
}

test.run()

function sampleOf(row: AnyRow): Sample {
  return SAMPLES[row.name]!
}

function statusOf(row: AnyRow, code: ErrorCode): number {
  return code === 'InvalidParameters' ? (row.invalidStatus ?? 400) : ERRORS[code].status
}

/** Codes that every entry documents but that these rows cannot come to: they ask nobody. */
function neverOf(row: AnyRow, code: ErrorCode): boolean {
  const itself = ['LogLevelGet', 'LogLevelSet', 'Info', 'Diagnostics']
  const asksNobody = ['Help', 'Ping', 'OpenApi', 'MachineList', 'ServerEventHeartbeat', ...itself]
  const asked: ErrorCode[] = ['ServiceUnavailableError', 'InternalError', 'IdempotencyKeyReused']
  if (['ServerWaitlistGetTicketByPost', 'ServerCapacity'].includes(row.name) && code === 'IdempotencyKeyReused')
    return true
  return asksNobody.includes(row.name) && asked.includes(code)
}

interface Attempt {
  ask: ReturnType<typeof fakeGateway>['ask']
  backend: FakeBackend
  row: AnyRow
  sample: Sample
  code: ErrorCode
}
type Way = (attempt: Attempt) => Promise<Answered | undefined>

/** Ways that may lead to a code; the first that does counts. */
function waysTo(code: ErrorCode): Way[] {
  return special[code] ?? [refusedByActor, taskFails, allocatorRefuses]
}

const send = ({ ask, sample }: Attempt, headers: Record<string, string> = {}, body: unknown = sample.body) =>
  ask(sample.method, sample.path, { body, headers })

const at = (attempt: Attempt, path: string, body: unknown = attempt.sample.body) =>
  attempt.ask(attempt.sample.method, path, { body })

const refusedByActor: Way = attempt => {
  const { backend, code } = attempt
  const refuse = () => ({ error: rejection(code) })
  for (const verb of verbs) backend.answers.set(verb, refuse)
  for (const read of backend.reads.keys()) backend.reads.set(read, refuse())
  return send(attempt)
}

const taskFails: Way = attempt => {
  attempt.backend.outcome = { status: 'failure', error: { code: attempt.code, message: 'it failed' } }
  return send(attempt)
}

const allocatorRefuses: Way = attempt => {
  attempt.backend.allocation = { error: rejection(attempt.code) }
  return send({ ...attempt, sample: { ...attempt.sample, path: attempt.sample.path.replace('one.', 'new.') } })
}

const verbs = [
  'cn.register',
  'cn.status',
  'cn.task_add',
  'cn.task_fail',
  ...['job_start', 'job_cancel', 'pause', 'resume'].map(verb => `cn.${verb}`),
  ...['update', 'boot_set', 'boot_update', 'delete'].map(verb => `cn.${verb}`),
  ...[...VM_VERBS, 'actions'].map(verb => `vm.${verb}`),
  ...['create', 'network_create', 'start', 'destroy'].map(verb => `host.${verb}`),
  ...['create', 'release', 'delete'].map(verb => `waitlist.${verb}`),
]

const throwing =
  (error: Error): Way =>
  attempt => {
    const { backend } = attempt
    backend.broken = error
    const fail = () => {
      throw error
    }
    for (const verb of [...verbs, 'cn.read']) backend.answers.set(verb, fail)
    backend.tasks.load = async () => fail()
    backend.jobs.load = async () => fail()
    backend.machine = async () => fail()
    return send(attempt)
  }

const special: Partial<Record<ErrorCode, Way[]>> = {
  NotAcceptable: [attempt => send(attempt, { accept: 'image/png' })],
  InvalidContent: [attempt => send(attempt, {}, '{"a":')],
  UnsupportedMediaType: [attempt => send(attempt, { 'content-type': 'text/xml' }, '<a/>')],
  PayloadTooLarge: [attempt => send(attempt, { 'content-length': String(1024 * 1024 + 1) }, '{}')],
  ServiceUnavailableError: [throwing(new UnavailableError('no leader'))],
  InternalError: [throwing(new Error('a bug'))],
  InvalidParameters: [
    attempt =>
      attempt.row.invalidStatus && changes(attempt.row)
        ? send(attempt, {}, { servers: 1 })
        : Promise.resolve(undefined),
    attempt =>
      changes(attempt.row) ? send(attempt, { 'idempotency-key': 'x'.repeat(256) }) : Promise.resolve(undefined),
    attempt => at(attempt, `${attempt.sample.path.split('?')[0]}?limit=0`),
    attempt => at(attempt, `${attempt.sample.path.split('?')[0]}?limit=0&info=1&include_dni=2&format=3&server_uuid=4`),
    attempt => at(attempt, '/host/-bad-'),
    attempt => at(attempt, '/hosts/-bad-'),
    attempt => at(attempt, '/host/-bad-/network/x'),
    attempt => at(attempt, '/networks/-bad-'),
    attempt => at(attempt, `/servers/${SERVER}/vms/${VM}?jobid=1&jobid=2`),
    attempt => at(attempt, `/servers/${SERVER}/vms/${VM}/vnc?jobid=1&jobid=2`),
    attempt => at(attempt, `${attempt.sample.path}?jobid=1&jobid=2`),
  ],
  InvalidArgument: [
    attempt => at(attempt, attempt.sample.path.replace(SERVER, 'nonsense')),
    attempt => at(attempt, `${attempt.sample.path}${attempt.sample.path.includes('?') ? '&' : '?'}bogus=1`),
    attempt => at(attempt, `${attempt.sample.path}?server_uuid=nonsense`),
    refusedByActor,
  ],
  ResourceNotFound: [
    attempt => at(attempt, attempt.sample.path.replace(SERVER, VM)),
    attempt => at(attempt, attempt.sample.path.replace('/tasks/4', '/tasks/5')),
    attempt => at(attempt, attempt.sample.path.replace('/jobs/5', '/jobs/6')),
    attempt => at(attempt, attempt.sample.path.replace(/(tickets|waitlist)\/[0-9a-f]{4}/, '$1/0000')),
    attempt => at(attempt, attempt.sample.path.replace('/machines/vm', '/machines/none')),
    attempt => at(attempt, `${attempt.sample.path}?server_uuid=${VM}`),
    attempt => {
      attempt.backend.answers.set('host.start', () => ({ error: rejection('VmNotFound') }))
      attempt.backend.answers.set('host.destroy', () => ({ error: rejection('VmNotFound') }))
      return at(attempt, attempt.sample.path.replace('one.', 'none.'))
    },
  ],
  ServerNotRunning: [
    attempt => {
      attempt.backend.put.server({ status: 'unknown' })
      return at(attempt, `${attempt.sample.path}?server_uuid=${SERVER}`)
    },
  ],
  ServerAmbiguous: [
    attempt => {
      withFleet(attempt.backend)
      return send(attempt)
    },
    // Below a host the name of the host usually says which server; for an unknown one a fleet cannot know.
    attempt => {
      withFleet(attempt.backend)
      return at(attempt, attempt.sample.path.replace('one.', 'none.'))
    },
  ],
  RequestTimedOut: [
    async attempt => {
      const params = { server_uuid: SERVER, scope: 'vm', id: VM, expires_at: '3000' }
      const waiter = derivedIds('waiter', 'test').ticket(QUEUE)
      attempt.backend.waitlist.command(QUEUE, 'create', { ticket_uuid: waiter, ...params })
      return at(attempt, attempt.sample.path.replace(TICKET, waiter))
    },
    attempt => {
      attempt.backend.outcome = undefined
      return send(attempt)
    },
    attempt => {
      attempt.backend.outcome = undefined
      return send(attempt, {}, { nojob: true })
    },
  ],
  TooManyWaiting: [refusedByActor],
  PreconditionFailed: [
    attempt => at(attempt, attempt.sample.path.replace('force=true', 'force=TRUE')),
    attempt => {
      attempt.backend.put.sysinfo(SERVER, {})
      return send(attempt)
    },
    attempt => {
      attempt.backend.put.server({ agents: [{ name: 'cn-agent', version: '2.7.9' }] })
      return send(attempt)
    },
  ],
  TicketFinished: [
    attempt => {
      attempt.backend.waitlist.command(QUEUE, 'release', { ticket_uuid: TICKET })
      return send(attempt)
    },
  ],
  TaskNotSupported: [attempt => send(attempt, {}, { update: { set_internal_metadata: {} } }), taskFails],
}
