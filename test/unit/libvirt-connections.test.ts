/** Bulkheads between the agent and libvirt: one guest that hangs delays neither others nor the listing. */
import { type ConnectionError, LibvirtError } from 'node-libvirt'
import * as assert from 'uvu/assert'
import { HypervisorError } from '../../hypervisor-agent/hypervisor.ts'
import { type ConnectionOptions, type Connections, connections } from '../../hypervisor-agent/libvirt/connections.ts'
import { failure, unavailable } from '../../hypervisor-agent/libvirt/failures.ts'
import { FakeServer } from '../../hypervisor-agent/node-libvirt/test/fake-server.ts'
import { eventually } from '../eventually.ts'
import { suite } from '../suite.ts'

const test = suite('libvirt connections')

test('calls for one VM go one at a time and in order, calls for others do not wait', async () => {
  await withServer({}, async (server, made) => {
    const order: string[] = []
    const call = (uuid: string, name: string) =>
      made.work(uuid, async libvirt => {
        await libvirt.lookupDomainByName(name)
        order.push(name)
      })
    const calls = [call('a', 'a1'), call('a', 'a2'), call('b', 'b1')]
    await eventually(() => server.waiting.length === 2)
    assert.equal(server.waiting.map(nameOf).sort(), ['a1', 'b1'])
    reply(server, 'b1')
    reply(server, 'a1')
    await eventually(() => server.waiting.some(one => nameOf(one) === 'a2'))
    reply(server, 'a2')
    await Promise.all(calls)
    assert.is(order.indexOf('a1') < order.indexOf('a2'), true)
  })
})

test('a call that fails lets the next one for its VM begin', async () => {
  await withServer({}, async (_server, made) => {
    await rejection(made.work('a', () => Promise.reject(new Error('no'))))
    assert.is(await made.work('a', async () => 'next'), 'next')
  })
})

test('guests that hang take places, so further connections are opened, and the listing never notices', async () => {
  await withServer({ workDeadlineMs: 100 }, async (server, made) => {
    const before = server.connections
    const hung = Array.from({ length: 9 }, (_, n) =>
      rejection(made.work(`vm${n}`, libvirt => libvirt.lookupDomainByName('hung'))),
    )
    for (const error of await Promise.all(hung)) assert.is((error as ConnectionError).reason, 'deadline')
    assert.is(server.connections - before, 3)
    const well = made.work('well', libvirt => libvirt.lookupDomainByName('well'))
    await eventually(() => server.waiting.some(one => nameOf(one) === 'well'))
    reply(server, 'well')
    await well
    server.answers['connect_get_lib_version'] = () => ({ lib_ver: 9_000_000n })
    await made.look.ping()
  })
})

test('calls that hang on the connection for listing are left behind there, and others like it take over', async () => {
  await withServer({ lookDeadlineMs: 150 }, async (server, made) => {
    const first = made.look
    const hung = Array.from({ length: 4 }, () => rejection(first.lookupDomainByName('hung')))
    for (const error of await Promise.all(hung)) assert.is((error as ConnectionError).reason, 'deadline')
    // Full: what is asked there now is not even sent.
    const well = await eventually(() => (made.look === first ? undefined : made.look), { what: 'another connection' })
    const listed = well.lookupDomainByName('well')
    await eventually(() => server.waiting.some(one => nameOf(one) === 'well'))
    reply(server, 'well')
    await listed
    assert.is(made.events, first, 'events go on where they were asked for')
    for (let n = 0; n < 8; n++) await rejection(made.look.lookupDomainByName('hung'))
    await eventually(() => server.connections === 4, { what: 'as many as there may be' })
    for (let n = 0; n < 8; n++) await rejection(made.look.lookupDomainByName('hung'))
    assert.is(server.connections, 4)
  })
})

test('no more than eight work connections are opened, and the last is kept for ending guests', async () => {
  await withServer({ workDeadlineMs: 150 }, async (server, made) => {
    const calls = Array.from({ length: 40 }, (_, n) =>
      rejection(made.work(`vm${n}`, libvirt => libvirt.lookupDomainByName('hung'))),
    )
    await Promise.all(calls)
    assert.is(server.connections, 8)
    const ended = made.work('vm0', libvirt => libvirt.lookupDomainByName('ended'), { urgent: true })
    await eventually(() => server.waiting.some(one => nameOf(one) === 'ended'))
    reply(server, 'ended')
    await ended
    assert.is(server.connections, 9)
  })
})

test('a VM whose call hangs is refused further calls until libvirt comes back, but may be ended', async () => {
  await withServer({ workDeadlineMs: 80 }, async (server, made) => {
    await rejection(made.work('a', libvirt => libvirt.lookupDomainByName('hung')))
    const next = (await rejection(made.work('a', async () => 'never'))) as HypervisorError
    assert.is(next.code, 'HypervisorUnavailable')
    assert.match(next.message, /has not come back/)
    assert.is(await made.work('a', async () => 'ended', { urgent: true }), 'ended')
    reply(server, 'hung')
    assert.is(await eventually(() => made.work('a', async () => 'again')), 'again')
  })
})

test('a line of 32 calls for one VM is the longest', async () => {
  await withServer({}, async (_server, made) => {
    let release: (() => void) | undefined
    const held = made.work(
      'a',
      () =>
        new Promise<void>(resolve => {
          release = resolve
        }),
    )
    const line = Array.from({ length: 31 }, () => made.work('a', async () => 'done'))
    const refused = (await rejection(made.work('a', async () => 'never'))) as HypervisorError
    assert.match(refused.message, /32 calls wait/)
    const letGo = await eventually(() => release)
    letGo()
    await held
    assert.is((await Promise.all(line)).length, 31)
  })
})

test('a call that lost its connection is repeated when libvirt is back', async () => {
  await withServer({}, async (server, made) => {
    let tries = 0
    const call = made.survive(
      () =>
        made.work('a', async libvirt => {
          tries += 1
          return (await libvirt.lookupDomainByName('survivor')).name
        }),
      5_000,
    )
    await eventually(() => server.waiting.length === 1)
    server.waiting.length = 0
    await server.drop({ stop: true })
    await server.listen()
    await eventually(() => server.waiting.length === 1)
    reply(server, 'survivor')
    assert.is(await call, 'survivor')
    assert.ok(tries >= 2)
  })
})

test('a call that lost its connection fails when libvirt stays away', async () => {
  await withServer({}, async (server, made) => {
    const call = rejection(made.survive(() => made.work('a', libvirt => libvirt.lookupDomainByName('x')), 150))
    await eventually(() => server.waiting.length === 1)
    await server.drop({ stop: true })
    assert.is(failure('do it', await call).code, 'HypervisorUnavailable')
  })
})

test('a refusal is not repeated', async () => {
  await withServer({}, async (server, made) => {
    const call = rejection(made.survive(() => made.look.lookupDomainByName('x'), 1_000))
    await eventually(() => server.waiting.length === 1)
    server.waiting.shift()?.fail({ code: 42, message: 'Domain not found' })
    assert.is(failure('find it', await call).code, 'VmNotFound')
    assert.is(server.asked.filter(name => name === 'domain_lookup_by_name').length, 1)
  })
})

test('libvirt’s errors have codes of Muster, and say what was being done', () => {
  const of = (code: number, message: string) =>
    failure('start VM x', new LibvirtError({ code, domain: 10, level: 2, message }, 'domain_create'))
  assert.equal(
    [
      of(42, 'Domain not found'),
      of(43, 'Network not found'),
      of(38, 'cannot write: No space left on device'),
      of(1, 'internal error: qemu: Cannot allocate memory'),
      of(1, 'internal error: Unable to add port vnet6 to OVS bridge br0'),
      of(38, "Cannot get interface MTU on 'nobr9': No such device"),
      of(55, 'Requested operation is not valid'),
    ].map(error => error.code),
    [
      'VmNotFound',
      'NetworkNotFound',
      'InsufficientStorage',
      'InsufficientMemory',
      'BridgeNotFound',
      'BridgeNotFound',
      'HypervisorError',
    ],
  )
  assert.is(of(55, 'Requested operation is not valid').message, 'cannot start VM x: Requested operation is not valid')
  const own = new HypervisorError('VmExists', 'there')
  assert.is(failure('anything', own), own)
})

test('no libvirt is one line that says what to do', async () => {
  const error = (await rejection(
    connections({ ...defaults, socketPath: '/nonexistent/libvirt-sock' }),
  )) as HypervisorError
  assert.is(error.code, 'HypervisorUnavailable')
  assert.match(
    error.message,
    /^libvirt \(test:\/\/\/x\) cannot be reached at \/nonexistent\/libvirt-sock: .*ENOENT.*; install libvirt-daemon-system or start libvirtd$/,
  )
  assert.match(
    unavailable('/s', 'u', new Error('authentication unavailable: no polkit agent available')).message,
    /group libvirt/,
  )
})

test.run()

const defaults: ConnectionOptions = {
  uri: 'test:///x',
  socketPath: '',
  lookDeadlineMs: 2_000,
  workDeadlineMs: 2_000,
}

async function withServer(
  options: Partial<ConnectionOptions>,
  body: (server: FakeServer, made: Connections) => Promise<unknown>,
): Promise<void> {
  const server = new FakeServer()
  server.answers['connect_get_type'] = () => ({ type: 'TEST' })
  await server.listen()
  const made = await connections({ ...defaults, socketPath: server.socketPath, ...options })
  try {
    await body(server, made)
  } finally {
    await made.close()
    await server.remove()
  }
}

function nameOf(request: { args: unknown }): string {
  return (request.args as { name: string }).name
}

/** Answers the first request for the domain of this name. */
function reply(server: FakeServer, name: string): void {
  const at = server.waiting.findIndex(one => nameOf(one) === name)
  const [request] = server.waiting.splice(at, 1)
  request?.reply({ dom: { name, uuid: new Uint8Array(16), id: 1 } })
}

function rejection(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    value => {
      throw new Error(`resolved with ${JSON.stringify(value)}`)
    },
    error => error,
  )
}
