// Images from a web server into the node's real pool: a VM boots from one, and the agent may die on the way.
import { readFile } from 'node:fs/promises'
import { gzipSync } from 'node:zlib'
import { equal, match, ok } from 'uvu/assert'
import { eventually } from '../eventually.ts'
import { digestsOf, type ImageServer, imageServer, qcow2 } from '../image-server.ts'
import { systemSuite } from './lab/suite.ts'

const { test, lab, muster } = await systemSuite('images', { muster: true })

let web: ImageServer
let content: Buffer
test.before(async () => {
  web = await imageServer()
  content = await readFile((await lab().virsh('vol-path', lab().image, '--pool', lab().pool)).trim())
})
test.after(() => web?.stop())

const path = (rest: string) => `/servers/${muster().serverUuid}${rest}`
const ensure = (body: object) => muster().request('POST', path('/ensure-image'), body)
const image = (name: string) => muster().request('GET', path(`/images/${name}`))

test('an image is fetched into the pool, and a VM that is made from it boots', async () => {
  const packed = gzipSync(content, { level: 1 })
  web.files.set('/guest.gz', { content: packed, etag: '"1"' })
  const { sha1 } = digestsOf(packed)
  const files = [{ sha1, size: packed.length, compression: 'gzip' }]
  await muster().completed(await ensure({ image_uuid: 'fetched', url: `${web.url}/guest.gz`, files }))
  const shown = await image('fetched')
  equal(shown.status, 200)
  equal([shown.body.format, shown.body.sha1, shown.body.used_by], ['qcow2', sha1, 0])
  const made = await muster().request('POST', path('/vms'), {
    alias: 'from-fetched',
    ram: 96,
    disks: [{ size: 1024, image_uuid: 'fetched' }],
  })
  await muster().completed(made)
  const uuid = made.body.vm_uuid as string
  await (await lab().console(uuid)).sees(/DISKBOOT-OK[\s\S]*?MUSTER-GUEST ready/)

  const refused = await muster().request('DELETE', path('/images/fetched'))
  equal([refused.status, refused.body.code], [409, 'ImageInUse'])
  match(refused.body.message, uuid)
  equal((await image('fetched')).body.used_by, 1)
  await muster().completed(await muster().request('DELETE', path(`/vms/${uuid}`)))
  equal((await muster().request('DELETE', path('/images/fetched'))).status, 204)
  equal((await image('fetched')).status, 404)
})

test('an agent that is killed while it fetches goes on with what it has, and the task ends well', async () => {
  web.files.set('/held', { content, etag: '"2"', holdsAfter: Math.floor(content.length / 2) })
  const { sha256 } = digestsOf(content)
  const answer = await ensure({ image_uuid: 'held', url: `${web.url}/held`, sha256 })
  await eventually(() => web.requests.includes('/held'), { withinMs: 20_000, what: 'the agent fetches' })
  await eventually(async () => (await muster().request('GET', `/tasks/${answer.body.id}`)).body.progress > 0, {
    withinMs: 20_000,
    what: 'the task tells progress',
  })
  await muster().killAgent()
  delete web.files.get('/held')?.holdsAfter
  await muster().completed(answer)
  const asked = web.requests.filter(request => request.startsWith('/held'))
  equal(asked.length, 2, asked.join(', '))
  match(asked[1] ?? '', /^\/held bytes=[1-9]\d*-$/)
  equal((await muster().request('DELETE', path('/images/held'))).status, 204)
})

test('what is not what its checksum says, and what leads to a file of the node, never gets into the pool', async () => {
  const before = await lab().leftovers()
  const hostile = qcow2(1024 ** 2, header => {
    header.writeBigUInt64BE(512n, 8)
    header.writeUInt32BE(11, 16)
    header.write('/etc/shadow', 512)
  })
  web.files.set('/hostile', { content: hostile })
  const url = `${web.url}/hostile`
  for (const [sha256, code] of [
    ['0'.repeat(64), 'ImageChecksumMismatch'],
    [digestsOf(hostile).sha256, 'ImageInvalid'],
  ]) {
    const task = await muster().ended(await ensure({ image_uuid: 'hostile', url, sha256 }))
    equal([task.status, task.error?.code], ['failure', code])
  }
  equal((await image('hostile')).status, 404)
  equal(await lab().leftovers(), before)
})

test('nothing is left behind', async () => {
  const images = (await muster().request('GET', path('/images'))).body as { name: string }[]
  ok(images.some(({ name }) => name === lab().image))
  equal(images.length, 1)
  equal(await lab().leftovers(), [])
})

test.run()
