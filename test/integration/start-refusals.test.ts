/** What can be wrong before `npm start` has anything running: each is one line that says what to do, and nothing is left behind. */
import { spawnSync } from 'node:child_process'
import { chmodSync, mkdirSync, mkdtempSync, rmSync, statfsSync, writeFileSync } from 'node:fs'
import { createServer, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import { freePorts, startNats } from '../nats.ts'
import { runStart, type StartOptions } from '../start.ts'
import { suite } from '../suite.ts'

const test = suite('refusals of npm start')
const folder = mkdtempSync(join(tmpdir(), 'muster-refusals-'))
chmodSync(folder, 0o755)
const root = process.getuid?.() === 0
const nobody = 65534
test.after(() => rmSync(folder, { recursive: true, force: true }))

test('every wrong setting is named at once', async () => {
  await refuses({ PORT: '70000', HYPERVISOR: 'vmware', SIMULATED_NODES: 'many', NATS_URL: 'a b', NATS_FETCH: 'no' }, [
    'PORT: must be a whole number from 1 to 65535',
    'HYPERVISOR: must be one of auto, libvirt, simulated',
    'SIMULATED_NODES: must be a whole number from 1 to 1000',
    'NATS_URL: must be like nats://host:4222',
    'NATS_FETCH: must be auto or never',
  ])
})

test('a port in use is refused before anything is started', async () => {
  const taken = createServer()
  await new Promise<void>(resolve => taken.listen(0, '127.0.0.1', resolve))
  const { port } = taken.address() as { port: number }
  try {
    await refuses({ PORT: String(port) }, [`port ${port} on 127.0.0.1 is in use`, 'set PORT to another one'])
  } finally {
    await closed(taken)
  }
})

test('a data folder that cannot be made is refused', async () => {
  const file = join(folder, 'a-file')
  writeFileSync(file, '')
  await refuses({ DATA_DIR: join(file, 'data') }, [
    `the data folder ${file}/data cannot be written (ENOTDIR)`,
    'set DATA_DIR',
  ])
})

asRoot("a data folder of somebody else's is refused", async () => {
  const theirs = join(folder, 'theirs')
  mkdirSync(theirs, { mode: 0o700 })
  const hints = [
    `the data folder ${theirs} cannot be written (EACCES)`,
    'make it writable for this user, or set DATA_DIR',
  ]
  await refuses({ DATA_DIR: theirs }, hints, { uid: nobody })
})

asRoot('a full disk is refused with what is free and what is needed', async () => {
  const small = join(folder, 'small')
  mkdirSync(small)
  const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', small], { encoding: 'utf8' })
  assert.is(mounted.status, 0, mounted.stderr)
  try {
    await refuses({ DATA_DIR: small }, [`the disk of ${small} is full (`, ' MiB free, 64 needed)', 'free some space'])
    const { bavail, bsize } = statfsSync(small)
    writeFileSync(join(small, 'filler'), Buffer.alloc(bavail * bsize))
    await refuses({ DATA_DIR: small }, [`the disk of ${small} is full (0 MiB free`])
  } finally {
    spawnSync('umount', [small])
  }
})

test('libvirt that was asked for and does not answer is refused', async () => {
  const socket = join(folder, 'no-libvirt')
  await refuses({ HYPERVISOR: 'libvirt', LIBVIRT_SOCKET: socket }, [
    `libvirt does not answer (${socket}: ENOENT)`,
    'install and start libvirtd',
    'HYPERVISOR=simulated',
  ])
})

asRoot('a libvirt socket without access is refused with the group to join', async () => {
  const socket = join(folder, 'libvirt-sock')
  const server = createServer()
  await new Promise<void>(resolve => server.listen(socket, resolve))
  chmodSync(socket, 0o600)
  const dataDir = mkdtempSync(join(folder, 'nobody-'))
  chmodSync(dataDir, 0o777)
  try {
    const env = { HYPERVISOR: 'libvirt', LIBVIRT_SOCKET: socket, DATA_DIR: dataDir }
    await refuses(env, [`${socket}: EACCES`, 'add this user to the group libvirt'], { uid: nobody })
  } finally {
    await closed(server)
  }
})

test('a NATS server that is too old is refused with what to install', async () => {
  const old = await pretendNats('2.10.27')
  try {
    await refuses({ NATS_URL: old.url }, ['nats-server 2.10.27 is too old', 'Install 2.12 or newer'])
  } finally {
    await closed(old.server)
  }
})

test('a NATS server without JetStream is refused with the block to add', async () => {
  const nats = await startNats({ muster: false })
  try {
    await refuses({ NATS_URL: nats.url }, ['JetStream is off', 'nats.conf', 'jetstream { store_dir:'])
  } finally {
    await nats.stop()
  }
})

test('a NATS server without the mappings is refused with the lines to add', async () => {
  const nats = await startNats({ muster: false, conf: 'jetstream { store_dir: $NATS_STORE }' })
  try {
    await refuses({ NATS_URL: nats.url }, [
      'mappings',
      '"vm.*.cmd.*": "p.{{partition(64,1)}}.vm.',
      '"hb.*"',
      'nats.conf',
    ])
  } finally {
    await nats.stop()
  }
})

test('a NATS server where nobody listens is refused with its address', async () => {
  const [port] = await freePorts(1)
  await refuses({ NATS_URL: `nats://127.0.0.1:${port}` }, [`cannot connect to NATS at nats://127.0.0.1:${port}`])
})

test('a damaged list of nodes is refused by name, not replaced', async () => {
  const dataDir = mkdtempSync(join(folder, 'damaged-'))
  writeFileSync(join(dataDir, 'nodes.json'), '{"simulated": ["not a uuid"]}')
  await refuses({ DATA_DIR: dataDir }, [`${dataDir}/nodes.json is damaged`])
})

test('a NATS_SERVER that is too old is refused, not replaced', async () => {
  const program = join(folder, 'old-nats-server')
  writeFileSync(program, '#!/bin/sh\necho "nats-server: v2.9.10"\n', { mode: 0o755 })
  await refuses({ NATS_SERVER: program }, [`NATS_SERVER=${program} cannot be used`, '2.9.10 is older than 2.12'])
})

test.run()

function asRoot(claim: string, body: () => Promise<void>): void {
  if (root) test(claim, body)
  else test.skip(claim, 'needs root')
}

/** One line on stderr with all of `hints`, exit code 1, and no child left. */
async function refuses(env: NodeJS.ProcessEnv, hints: string[], options: StartOptions = {}): Promise<void> {
  const [port] = await freePorts(1)
  const dataDir = env['DATA_DIR'] ?? mkdtempSync(join(folder, 'data-'))
  const defaults = { PORT: String(port), HYPERVISOR: 'simulated', DATA_DIR: dataDir }
  const run = runStart({ ...defaults, ...env }, options)
  assert.is(await run.ended(), 1, run.output())
  const lines = run.stderr().trim().split('\n')
  assert.is(lines.length, 1, run.stderr())
  assert.match(lines[0] ?? '', /^muster: /)
  for (const hint of hints) assert.ok(lines[0]?.includes(hint), `${JSON.stringify(hint)} in: ${lines[0]}`)
  assert.is(spawnSync('pgrep', ['-f', dataDir], { encoding: 'utf8' }).stdout.trim(), '', 'nothing runs in that folder')
}

/** Speaks just enough of the protocol to be asked for its version. */
async function pretendNats(version: string): Promise<{ url: string; server: Server }> {
  const server = createServer(link => {
    link.on('error', () => {})
    link.write(
      `INFO ${JSON.stringify({ server_id: 'old', version, proto: 1, headers: true, max_payload: 1048576 })}\r\n`,
    )
    link.on('data', data => {
      if (data.includes('PING\r\n')) link.write('PONG\r\n')
    })
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  return { url: `nats://127.0.0.1:${(server.address() as { port: number }).port}`, server }
}

function closed(server: Server): Promise<void> {
  return new Promise(resolve => server.close(() => resolve()))
}
