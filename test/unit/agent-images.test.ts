/** Images fetched from a local HTTP server: whole or not at all, once for all who want them, and on from where a crash left them. */
import { execFileSync } from 'node:child_process'
import { randomBytes, randomUUID } from 'node:crypto'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import * as assert from 'uvu/assert'
import type { TaskReport } from '../../actors/contract/messages.ts'
import { eventually } from '../eventually.ts'
import { digestsOf, type ImageServer, imageServer, qcow2, type ServedFile } from '../image-server.ts'
import { suite } from '../suite.ts'
import { type Agent, type AgentOptions, type Node, offer, simulatedNode, vmSpec } from './agent-fixture.ts'

const test = suite('agent images')
const mib = 1024 * 1024

let web: ImageServer
test.before(async () => {
  web = await imageServer()
})
test.after(() => web.stop())

interface Place {
  node: Node
  agent: Agent
  /** Starts another agent on the same node. */
  again(): Promise<Agent>
  run(task: Parameters<typeof offer>[0], params: Record<string, unknown>): Promise<TaskReport>
  image(name: string): Promise<unknown>
}

async function withNode(body: (place: Place) => Promise<void>, options: AgentOptions = {}): Promise<void> {
  const node = await simulatedNode()
  const agents: Agent[] = []
  const start = async () => {
    const made = await node.agent(options)
    agents.push(made)
    return made
  }
  const place: Place = {
    node,
    agent: await start(),
    again: start,
    run: async (task, params) => {
      const made = offer(task, params)
      await agents.at(-1)?.executor.accept(made)
      return node.owner.end(made.id, 20_000)
    },
    image: async name => (await node.hypervisor.listImages()).find(image => image.name === name),
  }
  try {
    await body(place)
  } finally {
    web.release()
    for (const agent of agents) await agent.kill()
    await node.remove()
  }
}

/** Puts content on the server and says how it is asked for. */
function served(content: Buffer, more: Partial<ServedFile> = {}) {
  const path = `/${randomUUID()}`
  const file: ServedFile = { content, etag: `"${digestsOf(content).sha1}"`, ...more }
  web.files.set(path, file)
  const { sha256 } = digestsOf(content)
  return { path, file, params: { image_uuid: randomUUID(), url: web.url + path, sha256 } }
}

const asked = (path: string) => web.requests.filter(request => request.startsWith(path))
const partsOf = (node: Node) => readdirSync(join(node.stateDir, 'image-parts'))
const failedWith = (report: TaskReport, code: string, text: RegExp) => {
  assert.is(report.status, 'failure')
  assert.is(report.error?.code, code, report.error?.message)
  assert.match(report.error?.message ?? '', text)
}

test('an image is fetched, checked, put into the pool, and shown with where it came from', () =>
  withNode(async ({ node, run }) => {
    const { params } = served(Buffer.concat([qcow2(512 * mib), randomBytes(mib)]))
    const end = await run('image_ensure_present', params)
    assert.is(end.status, 'complete', JSON.stringify(end.error))
    const shown = (await run('image_get', { uuid: params.image_uuid })).result as Record<string, unknown>
    assert.is(shown['size'], 512 * mib, 'what its disk holds, not what its file takes')
    assert.is(shown['format'], 'qcow2')
    assert.is(shown['sha256'], params.sha256)
    assert.is(shown['source'], params.url)
    assert.is(shown['used_by'], 0)
    assert.equal(partsOf(node), [], 'nothing is left of the download')
  }))

test('what opens an address is neither shown nor told, also of an image that was fetched before that was so', () =>
  withNode(async ({ node, run }) => {
    const content = randomBytes(1000)
    web.files.set('/signed?key=secret', { content })
    const { sha256 } = digestsOf(content)
    const params = { image_uuid: 'signed', url: `${web.url}/signed?key=secret#part`, sha256 }
    const wrong = await run('image_ensure_present', { ...params, sha256: '0'.repeat(64) })
    failedWith(wrong, 'ImageChecksumMismatch', /\/signed is not what was asked for/)
    failedWith(
      await run('image_ensure_present', { ...params, url: `${web.url}/signed?key=secrets` }),
      'ImageSourceInvalid',
      /signed/,
    )
    assert.is((await run('image_ensure_present', params)).status, 'complete')
    const shown = async () => ((await run('image_get', { uuid: 'signed' })).result as { source: string }).source
    assert.is(await shown(), `${web.url}/signed`)
    const file = join(node.stateDir, 'images', 'signed.json')
    assert.not.match(readFileSync(file, 'utf8'), /secret/)
    writeFileSync(file, readFileSync(file, 'utf8').replace('/signed', '/signed?key=secret'))
    assert.is(await shown(), `${web.url}/signed`)
    assert.not.match(JSON.stringify(node.owner.reports), /secret/)
  }))

test('twice equals once: an image that is there is not fetched again', () =>
  withNode(async ({ run }) => {
    const { params, path } = served(randomBytes(1000))
    for (const _ of [1, 2]) assert.is((await run('image_ensure_present', params)).status, 'complete')
    assert.is(asked(path).length, 1)
  }))

test('the same name with another checksum is refused, not passed off', () =>
  withNode(async ({ run }) => {
    const { params } = served(randomBytes(1000))
    await run('image_ensure_present', params)
    const other = await run('image_ensure_present', { ...params, sha256: '0'.repeat(64) })
    failedWith(other, 'ImageChecksumMismatch', /delete it first/)
  }))

test('many who want one image share one download, and all end well', () =>
  withNode(async ({ node, agent }) => {
    const { params, path, file } = served(randomBytes(300_000), { holdsAfter: 100_000 })
    const tasks = Array.from({ length: 8 }, () => offer('image_ensure_present', params))
    for (const task of tasks) await agent.executor.accept(task)
    await eventually(() => asked(path).length === 1)
    web.release()
    for (const task of tasks) assert.is((await node.owner.end(task.id)).status, 'complete')
    assert.is(asked(path).length, 1)
    assert.is(file.holdsAfter, undefined)
  }))

test('a connection that breaks is taken up where it broke', () =>
  withNode(async ({ run }) => {
    const content = randomBytes(400_000)
    const { params, path } = served(content, { breaks: [100_000, 150_000] })
    assert.is((await run('image_ensure_present', params)).status, 'complete')
    const [first, ...rest] = asked(path)
    assert.is(first, path)
    assert.is(rest.length, 2)
    for (const request of rest) assert.match(request, /bytes=[1-9]\d*-$/)
  }))

test('a server that breaks off again and again and brings nothing is given up, and what came is kept', () =>
  withNode(async ({ node, run }) => {
    const { params, file } = served(randomBytes(50_000), { breaks: [20_000, 0, 0, 0, 0, 0, 0, 0, 0, 0] })
    failedWith(await run('image_ensure_present', params), 'ImageSourceInvalid', /broke off|cannot be fetched/)
    assert.equal(partsOf(node), [params.image_uuid])
    file.breaks = []
    assert.is((await run('image_ensure_present', params)).status, 'complete')
    assert.equal(partsOf(node), [])
  }))

test('a server without parts is asked for the whole again', () =>
  withNode(async ({ run }) => {
    const { params, path } = served(randomBytes(100_000), { breaks: [40_000], ignoresRange: true })
    assert.is((await run('image_ensure_present', params)).status, 'complete')
    assert.is(asked(path).length, 2)
  }))

test('content that is not what was asked for is refused and not kept', () =>
  withNode(async ({ node, run, image }) => {
    const { params } = served(randomBytes(1000))
    const wrong = await run('image_ensure_present', { ...params, sha256: 'a'.repeat(64) })
    failedWith(wrong, 'ImageChecksumMismatch', /SHA256 is [0-9a-f]{64}, not a{64}/)
    assert.is(await image(params.image_uuid), undefined)
    const folder = join(node.stateDir, 'image-parts', params.image_uuid)
    assert.not.ok(existsSync(join(folder, 'data')))
  }))

test('wrong content is fetched twice at most, also where every connection breaks', () =>
  withNode(async ({ run }) => {
    const { params, path } = served(randomBytes(1000), { breaks: Array(40).fill(500) })
    failedWith(
      await run('image_ensure_present', { ...params, sha256: 'a'.repeat(64) }),
      'ImageChecksumMismatch',
      /SHA256/,
    )
    assert.ok(asked(path).length <= 6, `${asked(path).length} requests`)
  }))

test('every checksum that is given must fit, and so must the size', () =>
  withNode(async ({ run }) => {
    const { params } = served(randomBytes(1000))
    failedWith(await run('image_ensure_present', { ...params, sha1: 'b'.repeat(40) }), 'ImageChecksumMismatch', /SHA1/)
    failedWith(await run('image_ensure_present', { ...params, size: 1001 }), 'ImageChecksumMismatch', /1000 bytes/)
    failedWith(await run('image_ensure_present', { ...params, size: 999 }), 'ImageSourceInvalid', /more than the 999/)
  }))

test('a part of a file that has changed meanwhile does not spoil the new one', () =>
  withNode(async ({ agent, again, node }) => {
    const [old, fresh] = [randomBytes(200_000), randomBytes(200_000)]
    // No name for its content: only the checksum can tell.
    const { params, file } = served(fresh, { holdsAfter: 100_000 })
    delete file.etag
    file.content = old
    const task = offer('image_ensure_present', params)
    await agent.executor.accept(task)
    const data = join(node.stateDir, 'image-parts', params.image_uuid, 'data')
    await eventually(() => existsSync(data) && readFileSync(data).length === 100_000)
    await agent.kill()
    Object.assign(file, { content: fresh, holdsAfter: undefined })
    const next = await again()
    next.executor.resume()
    assert.is((await node.owner.end(task.id)).status, 'complete')
  }))

test('the size limit holds for what is fetched and for what is unpacked', () =>
  withNode(
    async ({ run }) => {
      failedWith(await run('image_ensure_present', served(randomBytes(70_000)).params), 'ImageSourceInvalid', /65536/)
      const bomb = served(gzipSync(Buffer.alloc(10 * mib)))
      assert.ok(bomb.file.content.length < 65_536)
      const end = await run('image_ensure_present', { ...bomb.params, compression: 'gzip' })
      failedWith(end, 'ImageInvalid', /more than the 65536 bytes/)
    },
    { imageMaxBytes: 65_536 },
  ))

for (const [compression, pack] of [
  ['gzip', (content: Buffer) => gzipSync(content)],
  ['xz', (content: Buffer) => execFileSync('xz', ['-c', '-0'], { input: content, maxBuffer: 8 * mib })],
] as const) {
  test(`an image packed with ${compression} is known by the checksum of the packed file`, () =>
    withNode(async ({ run, image }) => {
      const { params } = served(pack(Buffer.concat([qcow2(64 * mib), Buffer.alloc(200_000)])))
      assert.is((await run('image_ensure_present', { ...params, compression })).status, 'complete')
      assert.is(((await image(params.image_uuid)) as { size_bytes: number }).size_bytes, 64 * mib)
      const notPacked = served(randomBytes(5_000))
      failedWith(
        await run('image_ensure_present', { ...notPacked.params, compression }),
        'ImageInvalid',
        /cannot be unpacked|xz refuses/,
      )
    }))
}

const hostile: [string, Buffer, RegExp][] = [
  ['stands on another file of the node', qcow2(mib, header => header.writeBigUInt64BE(512n, 8)), /backing file/],
  ['keeps its data in another file', qcow2(mib, header => header.writeBigUInt64BE(4n, 72)), /another file/],
  ['is encrypted', qcow2(mib, header => header.writeUInt32BE(1, 32)), /encrypted/],
  ['is of an unknown version', qcow2(mib, header => header.writeUInt32BE(9, 4)), /version 9/],
  ['is cut off', qcow2(mib).subarray(0, 60), /cut off/],
]
for (const [what, content, said] of hostile) {
  test(`a qcow2 that ${what} is refused, and nothing of it is left`, () =>
    withNode(async ({ node, run, image }) => {
      const { params } = served(content)
      failedWith(await run('image_ensure_present', params), 'ImageInvalid', said)
      assert.is(await image(params.image_uuid), undefined)
      assert.equal(partsOf(node), [])
    }))
}

test('a qcow2 that is said to be raw is refused: who looks at it later would see a qcow2', () =>
  withNode(async ({ run }) => {
    const end = await run('image_ensure_present', { ...served(qcow2(mib)).params, format: 'raw' })
    failedWith(end, 'ImageInvalid', /said to be raw and is qcow2/)
  }))

test('an address that is not allowed is not asked', () =>
  withNode(
    async ({ run }) => {
      const { params, path } = served(randomBytes(10))
      failedWith(await run('image_ensure_present', params), 'ImageSourceInvalid', /INSTALL_ALLOW/)
      assert.equal(asked(path), [])
    },
    { allowedHosts: ['images.example.com'] },
  ))

test('without an address and without an image service it says what to give', () =>
  withNode(async ({ run }) => {
    const end = await run('image_ensure_present', { image_uuid: randomUUID() })
    failedWith(end, 'ImageSourceUnknown', /url.*IMGAPI_URL/)
  }))

test('an address without a checksum is refused', () =>
  withNode(async ({ run }) => {
    const { params } = served(randomBytes(10))
    failedWith(await run('image_ensure_present', { ...params, sha256: undefined }), 'ImageSourceInvalid', /checksum/)
  }))

test('an image may only be wanted in the pool that the node has', () =>
  withNode(async ({ node, run }) => {
    const { params } = served(randomBytes(10))
    const { pool } = await node.hypervisor.storage()
    const elsewhere = await run('image_ensure_present', { ...params, zfs_storage_pool_name: 'other' })
    failedWith(elsewhere, 'InvalidArgument', new RegExp(pool))
    for (const name of [pool, 'zones']) {
      assert.is((await run('image_ensure_present', { ...params, zfs_storage_pool_name: name })).status, 'complete')
    }
  }))

const serviceUrl = () => ({ imageService: `${web.url}/imgapi` })
function inService(content: Buffer, file: object = {}) {
  const uuid = randomUUID()
  const { sha1 } = digestsOf(content)
  const manifest = { uuid, name: 'base', files: [{ sha1, size: content.length, compression: 'none', ...file }] }
  web.files.set(`/imgapi/images/${uuid}`, { content: Buffer.from(JSON.stringify(manifest)) })
  web.files.set(`/imgapi/images/${uuid}/file`, { content })
  return uuid
}

test('an image without an address comes from the image service, by its manifest', async () => {
  await withNode(async ({ run, image }) => {
    const uuid = inService(gzipSync(qcow2(5 * mib)), { compression: 'gzip' })
    assert.is((await run('image_ensure_present', { image_uuid: uuid })).status, 'complete')
    assert.is(((await image(uuid)) as { size_bytes: number }).size_bytes, 5 * mib)
    const absent = await run('image_ensure_present', { image_uuid: randomUUID() })
    failedWith(absent, 'ImageSourceUnknown', /does not have image/)
    const bare = inService(randomBytes(10), { sha1: undefined })
    failedWith(await run('image_ensure_present', { image_uuid: bare }), 'ImageSourceInvalid', /checksum/)
  }, serviceUrl())
})

test('a VM from an image that is not there yet gets it from the image service first', async () => {
  await withNode(async ({ node, run, image }) => {
    const uuid = inService(qcow2(5 * mib))
    const spec = vmSpec({ disks: [{ size_mib: 64, image: uuid }] })
    const end = await run('machine_create', { spec })
    assert.is(end.status, 'complete', JSON.stringify(end.error))
    assert.ok(await image(uuid))
    assert.is(node.hypervisor.world.guest(spec.uuid)?.state, 'running')
  }, serviceUrl())
})

test('an image that a VM stands on is not removed; afterwards it is, and is then not found', () =>
  withNode(async ({ node, run, image }) => {
    const { params } = served(qcow2(mib))
    const uuid = params.image_uuid
    await run('image_ensure_present', params)
    const spec = vmSpec({ disks: [{ size_mib: 64, image: uuid }] })
    await run('machine_create', { spec })
    failedWith(await run('image_delete', { uuid }), 'ImageInUse', new RegExp(spec.uuid))
    const used = (await run('image_get', { uuid })).result as { used_by: number; used_by_vms: string[] }
    assert.is(used.used_by, 1)
    assert.equal(used.used_by_vms, [spec.uuid])
    await run('machine_destroy', { uuid: spec.uuid })
    assert.is((await run('image_delete', { uuid })).status, 'complete')
    assert.is(await image(uuid), undefined)
    assert.equal(readdirSync(join(node.stateDir, 'images')), [])
    failedWith(await run('image_delete', { uuid }), 'ImageNotFound', /there is no image/)
    failedWith(await run('image_get', { uuid }), 'ImageNotFound', /there is no image/)
  }))

test('an image is not removed while a VM is being made from it', () =>
  withNode(async ({ node, agent, run }) => {
    const { params } = served(qcow2(mib))
    await run('image_ensure_present', params)
    const release = node.hypervisor.faults.add({ call: 'defineVm', when: 'before', hang: true })
    const create = offer('machine_create', { spec: vmSpec({ disks: [{ size_mib: 64, image: params.image_uuid }] }) })
    await agent.executor.accept(create)
    await eventually(() => node.owner.reports.some(({ id, step }) => id === create.id && step === 'define'))
    failedWith(await run('image_delete', { uuid: params.image_uuid }), 'ImageInUse', /being made/)
    release()
    assert.is((await node.owner.end(create.id)).status, 'complete')
  }))

test('progress tells step and percent, and never goes back', () =>
  withNode(async ({ node, run }) => {
    const { params } = served(randomBytes(3 * mib))
    const { id } = await run('image_ensure_present', params)
    const told = node.owner.reports.filter(one => one.id === id && one.status === 'active')
    assert.ok(told.some(({ step }) => step === 'fetch_image' || step === 'install_image'))
    const percents = told.map(({ progress }) => progress ?? 0)
    assert.equal(
      percents,
      [...percents].sort((a, b) => a - b),
    )
  }))

test('an agent that dies while it fetches goes on from what is on its disk', () =>
  withNode(async ({ node, agent, again }) => {
    const { params, path, file } = served(randomBytes(300_000), { holdsAfter: 120_000 })
    const task = offer('image_ensure_present', params)
    await agent.executor.accept(task)
    const data = join(node.stateDir, 'image-parts', params.image_uuid, 'data')
    await eventually(() => existsSync(data) && readFileSync(data).length === 120_000)
    await agent.kill()
    delete file.holdsAfter
    const next = await again()
    next.executor.resume()
    assert.is((await node.owner.end(task.id)).status, 'complete')
    assert.equal(asked(path), [path, `${path} bytes=120000-`])
  }))

for (const call of ['listImages', 'installImage'] as const) {
  for (const when of ['before', 'after'] as const) {
    test(`an agent that dies ${when} ${call} ends with one image and one download`, () =>
      withNode(async ({ node, agent, again, image }) => {
        const { params, path } = served(qcow2(mib))
        const release = node.hypervisor.faults.add({ call, when, hang: true })
        const task = offer('image_ensure_present', params)
        await agent.executor.accept(task)
        const reached = call === 'listImages' ? 'accepted' : 'install_image'
        await eventually(() => node.owner.reports.some(({ status, step }) => reached === status || reached === step))
        await agent.kill()
        release()
        const next = await again()
        next.executor.resume()
        assert.is((await node.owner.end(task.id)).status, 'complete')
        assert.ok(await image(params.image_uuid))
        assert.is(asked(path).length, 1, 'what is on disk is not asked for again')
        assert.equal(partsOf(node), [])
      }))
  }
}

test('a cancelled download lets the next one have its turn, and its bytes', () =>
  withNode(async ({ node, agent }) => {
    const { params, path, file } = served(randomBytes(300_000), { holdsAfter: 120_000 })
    const [first, second] = [offer('image_ensure_present', params), offer('image_ensure_present', params)]
    await agent.executor.accept(first)
    const data = join(node.stateDir, 'image-parts', params.image_uuid, 'data')
    await eventually(() => existsSync(data) && readFileSync(data).length === 120_000)
    await agent.executor.accept(second)
    delete file.holdsAfter
    agent.executor.cancel(first.id)
    failedWith(await node.owner.end(first.id), 'TaskCancelled', /cancelled/)
    delete file.holdsAfter
    assert.is((await node.owner.end(second.id)).status, 'complete')
    assert.equal(asked(path), [path, `${path} bytes=120000-`])
  }))

test.run()
