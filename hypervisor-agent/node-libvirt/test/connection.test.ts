/** The connection against a server that misbehaves on purpose. */
import * as assert from 'uvu/assert'
import { eventually } from '../../../test/eventually.ts'
import { suite } from '../../../test/suite.ts'
import {
  type ConnectionError,
  type ConnectOptions,
  type DomainLifecycleEvent,
  Hypervisor,
  LibvirtError,
} from '../index.ts'
import { FakeServer } from './fake-server.ts'

const test = suite('connection')

test('replies torn into single bytes arrive whole', async () => {
  await withServer({}, async (server, hypervisor) => {
    server.tearing = 1
    server.answers['connect_get_hostname'] = () => ({ hostname: 'torn' })
    assert.is(await hypervisor.getHostname(), 'torn')
  })
})

test('opening asks for authentication kinds, keepalive and the URI, in this order', async () => {
  await withServer({ uri: 'test:///x' }, async server => {
    assert.equal(server.asked, ['auth_list', 'connect_supports_feature', 'connect_open'])
  })
})

test('polkit is asked where the server wants it', async () => {
  const prepare = (server: FakeServer) => {
    server.answers['auth_list'] = () => ({ types: [2] })
    server.answers['auth_polkit'] = () => ({ complete: 1 })
  }
  await withServer({}, async server => assert.ok(server.asked.includes('auth_polkit')), prepare)
})

test('a server that wants SASL is refused with AUTH_FAILED', async () => {
  const server = new FakeServer()
  server.answers['auth_list'] = () => ({ types: [1] })
  await server.listen()
  const error = await rejection(Hypervisor.connect({ socketPath: server.socketPath }))
  assert.is((error as LibvirtError).codeName, 'AUTH_FAILED')
  await eventually(() => server.connections === 0)
  await server.remove()
})

test('no socket, and a socket that never answers, are errors within the connect timeout', async () => {
  const absent = await rejection(Hypervisor.connect({ socketPath: '/nonexistent/libvirt-sock' }))
  assert.is((absent as ConnectionError).reason, 'unreachable')
  assert.match((absent as Error).message, /ENOENT/)
  const server = new FakeServer()
  delete server.answers['auth_list']
  await server.listen()
  const silent = await rejection(Hypervisor.connect({ socketPath: server.socketPath, connectTimeoutMs: 100 }))
  assert.is((silent as ConnectionError).reason, 'deadline')
  await eventually(() => server.connections === 0, { what: 'the half-open connection closed' })
  await server.remove()
})

test('an error reply carries code, domain, level and procedure', async () => {
  await withServer({}, async (server, hypervisor) => {
    const asked = rejection(hypervisor.lookupDomainByName('gone'))
    const request = await next(server)
    request.fail({ code: 42, message: 'Domain not found' })
    const error = await asked
    assert.instance(error, LibvirtError)
    const { code, codeName, domainName, level, message, procedure } = error as LibvirtError
    assert.equal(
      { code, codeName, domainName, level, message, procedure },
      {
        code: 42,
        codeName: 'NO_DOMAIN',
        domainName: 'QEMU',
        level: 2,
        message: 'Domain not found',
        procedure: 'domain_lookup_by_name',
      },
    )
  })
})

test('at most four calls are in flight, the others go in order as replies come', async () => {
  await withServer({}, async (server, hypervisor) => {
    const order: number[] = []
    const calls = Array.from({ length: 7 }, (_, id) => hypervisor.lookupDomainById(id).then(() => order.push(id)))
    await eventually(() => server.waiting.length === 4)
    assert.equal(hypervisor.load, { inFlight: 4, abandoned: 0, queued: 3 })
    for (let id = 0; id < 7; id += 1) {
      const request = await eventually(() => server.waiting.find(one => (one.args as { id: number }).id === id))
      assert.ok(server.waiting.length <= 4)
      server.waiting.splice(server.waiting.indexOf(request), 1)
      request.reply({ dom: domain(id) })
    }
    await Promise.all(calls)
    assert.equal(order, [0, 1, 2, 3, 4, 5, 6])
  })
})

test('a passed deadline frees the caller but not the slot', async () => {
  await withServer({ maxInFlight: 1 }, async (server, hypervisor) => {
    const late = await rejection(hypervisor.getHostname({ deadlineMs: 50 }))
    assert.is((late as ConnectionError).reason, 'deadline')
    assert.is((late as ConnectionError).sent, true)
    assert.equal(hypervisor.load, { inFlight: 1, abandoned: 1, queued: 0 })
    const unsent = await rejection(hypervisor.getHostname({ deadlineMs: 50 }))
    assert.is((unsent as ConnectionError).sent, false)
    assert.is(server.asked.filter(name => name === 'connect_get_hostname').length, 1)
    const after = hypervisor.getUri()
    let free = false
    const { released } = late as ConnectionError
    void released.then(() => {
      free = true
    })
    await (unsent as ConnectionError).released
    assert.is(free, false)
    ;(await next(server)).reply({ hostname: 'too late' })
    ;(await next(server)).reply({ uri: 'test:///x' })
    assert.is(await after, 'test:///x')
    await released
    assert.equal(hypervisor.load, { inFlight: 0, abandoned: 0, queued: 0 })
  })
})

test('a full queue refuses at once', async () => {
  await withServer({ maxInFlight: 1, maxQueued: 2 }, async (server, hypervisor) => {
    const calls = [1, 2, 3].map(() => hypervisor.getHostname())
    const refused = await rejection(hypervisor.getHostname())
    assert.is((refused as ConnectionError).reason, 'queue_full')
    for (const _ of calls) (await next(server)).reply({ hostname: 'h' })
    await Promise.all(calls)
  })
})

test('pings are answered', async () => {
  await withServer({}, async server => {
    server.ping()
    await eventually(() => server.pongs === 1)
  })
})

test('a server that answers pings keeps its connection, one that hangs loses it', async () => {
  await withServer({ keepalive: { intervalMs: 20, count: 3 } }, async (server, hypervisor) => {
    await eventually(() => server.pings >= 6)
    assert.ok(hypervisor.connected)
    const call = rejection(hypervisor.getHostname())
    await eventually(() => server.waiting.length === 1)
    server.answersPings = false
    const error = await call
    assert.is((error as ConnectionError).reason, 'lost')
    assert.is((error as ConnectionError).sent, true)
    assert.match((error as Error).message, /keepalive/)
  })
})

test('no keepalive is spoken to a server that does not know it', async () => {
  const prepare = (server: FakeServer) => {
    server.answers['connect_supports_feature'] = () => ({ supported: 0 })
    server.answersPings = false
  }
  await withServer(
    { keepalive: { intervalMs: 5, count: 2 } },
    async (server, hypervisor) => {
      server.answers['connect_get_hostname'] = () => ({ hostname: 'h' })
      for (let turn = 0; turn < 20; turn += 1) await hypervisor.getHostname()
      assert.is(server.pings, 0)
      assert.ok(hypervisor.connected)
    },
    prepare,
  )
})

test('a lost connection rejects what was open, comes back, and brings its events along', async () => {
  await withServer({ reconnect: { minMs: 10, maxMs: 40 } }, async (server, hypervisor) => {
    await hypervisor.subscribe('domain')
    const heard: DomainLifecycleEvent[] = []
    hypervisor.on('domain', event => heard.push(event))
    const lost = new Promise(resolve => hypervisor.once('disconnect', resolve))
    const back = new Promise<void>(resolve => hypervisor.once('reconnect', resolve))
    const open = rejection(hypervisor.getHostname())
    await eventually(() => server.waiting.length === 1)
    await server.drop({ stop: true })
    assert.is(((await lost) as ConnectionError).reason, 'lost')
    assert.is(((await open) as ConnectionError).sent, true)
    const meanwhile = (await rejection(hypervisor.getHostname())) as ConnectionError
    assert.equal([meanwhile.reason, meanwhile.sent], ['lost', false])
    server.asked.length = 0
    await server.listen()
    await back
    assert.equal(server.asked, [
      'auth_list',
      'connect_supports_feature',
      'connect_open',
      'connect_domain_event_callback_register_any',
    ])
    server.event('domain_event_callback_lifecycle', { callbackID: 1, msg: { dom: domain(3), event: 5, detail: 5 } })
    await eventually(() => heard.length === 1)
    assert.equal(heard[0], {
      name: 'd3',
      uuid: '03030303-0303-0303-0303-030303030303',
      event: 'stopped',
      detail: 'failed',
    })
  })
})

test('without reconnect a lost connection is closed for good', async () => {
  await withServer({ reconnect: false }, async (server, hypervisor) => {
    const closed = new Promise(resolve => hypervisor.once('close', resolve))
    await server.drop()
    assert.is(((await closed) as ConnectionError).reason, 'lost')
    assert.is(((await rejection(hypervisor.getHostname())) as ConnectionError).reason, 'closed')
    assert.is(server.connections, 0)
  })
})

test('bytes that are no packet end the connection with a protocol error, and a new one follows', async () => {
  await withServer({ reconnect: { minMs: 5, maxMs: 20 } }, async (server, hypervisor) => {
    const lost = new Promise(resolve => hypervisor.once('disconnect', resolve))
    const back = new Promise<void>(resolve => hypervisor.once('reconnect', resolve))
    server.raw(Buffer.from('HTTP/1.1 400 Bad Request\r\n'))
    assert.is(((await lost) as ConnectionError).reason, 'protocol')
    await back
  })
})

test('closing rejects open calls, waits for no hung server, and stays closed', async () => {
  await withServer({}, async (server, hypervisor) => {
    delete server.answers['connect_close']
    const open = rejection(hypervisor.getHostname())
    await hypervisor.close()
    assert.is(((await open) as ConnectionError).reason, 'closed')
    await eventually(() => server.connections === 0)
    assert.is(((await rejection(hypervisor.getHostname())) as ConnectionError).reason, 'closed')
  })
})

test('arguments that do not fit are refused before anything is sent', async () => {
  await withServer({}, async (server, hypervisor) => {
    const sentBefore = server.asked.length
    await rejection(hypervisor.lookupDomainByName('a\0b'))
    await rejection(hypervisor.lookupDomainByUuid('not-a-uuid'))
    assert.is(server.asked.length, sentBefore)
    assert.equal(hypervisor.load, { inFlight: 0, abandoned: 0, queued: 0 })
  })
})

test.run()

async function withServer(
  options: ConnectOptions,
  body: (server: FakeServer, hypervisor: Hypervisor) => Promise<unknown>,
  prepare: (server: FakeServer) => void = () => {},
): Promise<void> {
  const server = new FakeServer()
  prepare(server)
  await server.listen()
  const hypervisor = await Hypervisor.connect({ socketPath: server.socketPath, ...options })
  try {
    await body(server, hypervisor)
  } finally {
    await hypervisor.close()
    await server.remove()
  }
}

async function next(server: FakeServer) {
  await eventually(() => server.waiting.length > 0, { what: 'a request' })
  return server.waiting.shift()!
}

function domain(id: number) {
  return { name: `d${id}`, uuid: new Uint8Array(16).fill(id), id }
}

function rejection(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    value => {
      throw new Error(`resolved with ${JSON.stringify(value)}`)
    },
    error => error,
  )
}
