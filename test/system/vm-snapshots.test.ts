// Snapshots and images of real guests: what is on disk and in memory comes back, also when the agent dies in the middle.
import { createHash } from 'node:crypto'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { gunzipSync } from 'node:zlib'
import { equal, ok } from 'uvu/assert'
import { eventually } from '../eventually.ts'
import { command } from './lab/command.ts'
import { act, createGuest, destroy, shutOff } from './lab/stories.ts'
import { systemSuite } from './lab/suite.ts'

const { test, lab, muster } = await systemSuite('snapshots and images', { muster: true })

const path = (uuid: string) => `/servers/${muster().serverUuid}/vms/${uuid}`
const list = async (uuid: string) =>
  (await muster().request('GET', `${path(uuid)}/snapshots`)).body as { name: string }[]
const snapshot = (uuid: string, snapshot_name: string) =>
  muster().request('PUT', `${path(uuid)}/snapshots`, { snapshot_name })
const rollback = (uuid: string, name: string) => muster().request('PUT', `${path(uuid)}/snapshots/${name}/rollback`)
const domstate = async (uuid: string) => (await lab().virsh('domstate', uuid)).trim()
const pool = '/var/lib/libvirt/muster-lab/pool'

/** The sector of a disk that is written and read, and how its text is read in the guest. */
const mark = '$(($(cat /sys/block/$d/size) - 100))'
const readMark = `dd if=/dev/$d bs=512 skip=${mark} count=1 2>/dev/null | tr -d "\\0"`

/** Names of the snapshots that the VM's own files hold, whatever libvirt knows. */
async function inside(uuid: string): Promise<string[]> {
  const files = (await command('ls', [pool])).split('\n').filter(name => name.startsWith(uuid))
  const found = new Set<string>()
  for (const file of files) {
    const info = await command('qemu-img', ['info', '--force-share', '--output=json', `${pool}/${file}`])
    for (const { name } of (JSON.parse(info) as { snapshots?: { name: string }[] }).snapshots ?? []) found.add(name)
  }
  return [...found].sort()
}

let uuid = ''

test('bytes written before a snapshot are back after rollback, and the memory goes on from there', async () => {
  uuid = await createGuest(muster(), lab(), { alias: 'kept', disks: [8] })
  const console = await lab().console(uuid)
  await console.sees(/MUSTER-GUEST ready/)
  // A counter that lives in memory alone, and marks at the ends of both disks, beyond the first one's file system.
  await console.ask(
    'sh (n=0; while :; do n=$((n+1)); echo $n > /counter; sleep 1; done) >/dev/null 2>&1 & echo counting',
    /SH .*counting/,
  )
  const write = (text: string) =>
    console.ask(
      `sh for d in sda sdb; do echo ${text} | dd of=/dev/$d bs=512 seek=${mark} conv=sync 2>/dev/null; done; sync; echo 1 > /proc/sys/vm/drop_caches; echo wrote-$?`,
      /SH .*wrote-0/,
    )
  const read = `sh for d in sda sdb; do ${readMark}; done; echo counter=$(cat /counter).`
  await write('before')
  const [, atSnapshot] = await console.ask(read, /SH before before counter=(\d+)\./)
  const task = await muster().completed(await snapshot(uuid, 'running'))
  ok(task)
  await write('after')
  await eventually(
    async () => Number((await console.ask(read, /SH after after counter=(\d+)\./))[1]) > Number(atSnapshot) + 6,
    { withinMs: 60_000, everyMs: 1_000, what: 'the guest counting on' },
  )
  await muster().completed(await rollback(uuid, 'running'))
  equal(await domstate(uuid), 'running')
  // Another QEMU has another terminal.
  console.close()
  const [, afterwards] = await console.ask(read, /SH before before counter=(\d+)\./)
  const [was, is] = [Number(atSnapshot), Number(afterwards)]
  ok(is >= was && is <= was + 5, `the counter went on from ${was} and is ${is}`)
  equal(await console.count(/MUSTER-GUEST ready/), 1, 'the guest has not booted again')
  const [shown] = (await list(uuid)) as unknown as { size_bytes: number; memory: boolean; created_at: string }[]
  ok((shown?.size_bytes ?? 0) > 8 * 1024 ** 2, `its memory takes room: ${shown?.size_bytes}`)
  ok(shown?.memory && Date.parse(shown.created_at) > Date.now() - 120_000)
})

test('an agent killed while it takes a snapshot comes back to one snapshot, and the guest runs on', async () => {
  const answer = await snapshot(uuid, 'killed')
  await muster().killAgentAt(answer, 'snapshot')
  await muster().completed(answer)
  equal(await domstate(uuid), 'running')
  equal((await list(uuid)).map(one => one.name).sort(), ['killed', 'running'])
  equal(await inside(uuid), ['killed', 'running'])
})

test('an agent killed while it rolls back ends that: the bytes of then are there, and the guest goes on', async () => {
  const console = await lab().console(uuid)
  const boots = await console.count(/MUSTER-GUEST ready/)
  await console.ask(
    `sh for d in sda sdb; do echo later | dd of=/dev/$d bs=512 seek=${mark} conv=sync; done; sync; echo wrote`,
    /SH .*wrote/,
  )
  const answer = await rollback(uuid, 'running')
  await muster().killAgentAt(answer, 'rollback')
  await muster().completed(answer)
  equal(await domstate(uuid), 'running')
  console.close()
  await console.ask(`sh for d in sda sdb; do ${readMark}; done; echo read`, /SH before before read/)
  equal(await console.count(/MUSTER-GUEST ready/), boots, 'the guest has not booted again')
  equal((await list(uuid)).map(one => one.name).sort(), ['killed', 'running'])
  equal(await inside(uuid), ['killed', 'running'])
})

test('an agent killed while it deletes a snapshot has deleted it when it is back', async () => {
  const answer = await muster().request('DELETE', `${path(uuid)}/snapshots/killed`)
  await muster().killAgent()
  await muster().completed(answer)
  equal([(await list(uuid)).map(one => one.name), await inside(uuid)], [['running'], ['running']])
  equal(await domstate(uuid), 'running')
})

test('libvirtd killed while it takes a snapshot leaves the guest running, and nothing it does not know of', async () => {
  const answer = await snapshot(uuid, 'crashed')
  await lab().crashLibvirtd()
  const { status } = await muster().ended(answer)
  equal(await domstate(uuid), 'running')
  const expected = status === 'complete' ? ['crashed', 'running'] : ['running']
  equal((await list(uuid)).map(one => one.name).sort(), expected)
  equal(await inside(uuid), expected)
})

test('snapshots survive a stop; one of a stopped VM leaves it stopped; deleting is done once and again', async () => {
  await muster().completed(await act(muster(), uuid, 'stop', { force: true }))
  await shutOff(lab(), uuid)
  await muster().completed(await snapshot(uuid, 'off'))
  equal(await domstate(uuid), 'shut off')
  await muster().completed(await rollback(uuid, 'off'))
  equal(await domstate(uuid), 'shut off')
  for (const { name } of await list(uuid)) {
    const remove = () => muster().request('DELETE', `${path(uuid)}/snapshots/${name}`)
    await muster().completed(await remove())
    await muster().completed(await remove())
  }
  equal(await inside(uuid), [])
})

test('a VM made from an image of it, whole or incremental, boots and has its bytes; a kill in between leaves no half', async () => {
  const image = (name: string, more: object = {}) =>
    muster().request('POST', `${path(uuid)}/images`, { manifest: { uuid: name, name, version: '1' }, ...more })
  const published: { url: string; body: Buffer }[] = []
  const service = createServer((request, response) => {
    const pieces: Buffer[] = []
    request.on('data', piece => pieces.push(piece))
    request.on('end', () => {
      published.push({ url: request.url ?? '', body: Buffer.concat(pieces) })
      response.writeHead(200, { 'content-type': 'application/json' }).end('{}')
    })
  })
  await new Promise<void>(resolve => service.listen(0, '127.0.0.1', resolve))
  const imgapi_url = `http://127.0.0.1:${(service.address() as AddressInfo).port}`
  try {
    const whole = await image('whole', { imgapi_url, compression: 'gzip' })
    await muster().killAgentAt(whole, 'copy_disk')
    await muster().completed(whole)
    await muster().completed(await image('incremental', { incremental: true }))
  } finally {
    service.close()
    service.closeAllConnections()
  }
  const file = published.filter(({ url }) => url.startsWith('/images/whole/file?')).at(-1)
  const sha1 = createHash('sha1')
    .update(file?.body ?? '')
    .digest('hex')
  ok(file?.url.includes(`sha1=${sha1}`), `the service was told the checksum: ${file?.url}`)
  equal(
    gunzipSync(file?.body ?? '')
      .subarray(0, 3)
      .toString(),
    'QFI',
  )
  equal(
    (await command('ls', [pool])).split('\n').filter(name => name.startsWith('_incomplete_')),
    [],
  )
  const infoOf = async (name: string) =>
    JSON.parse(await command('qemu-img', ['info', '--force-share', '--output=json', `${pool}/${name}`])) as {
      'actual-size': number
      'backing-filename'?: string
    }
  equal((await infoOf('whole'))['backing-filename'], undefined)
  equal((await infoOf('incremental'))['backing-filename'], `${pool}/${lab().image}`)
  ok((await infoOf('incremental'))['actual-size'] < (await infoOf('whole'))['actual-size'] / 4)
  for (const name of ['whole', 'incremental']) {
    const answer = await muster().request('POST', `/servers/${muster().serverUuid}/vms`, {
      alias: `from-${name}`,
      ram: 96,
      vcpus: 1,
      disks: [{ size: 1024, image_uuid: name }],
    })
    await muster().completed(answer)
    const child = answer.body.vm_uuid as string
    const console = await lab().console(child)
    await console.sees(/MUSTER-GUEST ready/)
    await console.ask(`sh d=sda; ${readMark}; echo read`, /SH before read/)
    await muster().completed(await destroy(muster(), child))
  }
})

test('a long copy outlives its agent, and another image is made beside it', async () => {
  const answer = await muster().request('POST', `/servers/${muster().serverUuid}/vms`, {
    ...{ alias: 'large', ram: 64, vcpus: 1, disks: [{ size: 2048 }], autoboot: false },
  })
  await muster().completed(answer)
  const large = answer.body.vm_uuid as string
  const disk = `${pool}/${large}-disk0.qcow2`
  const fill =
    'head -c 1200000000 /dev/urandom > "$0.raw" && qemu-img convert -f raw -O qcow2 "$0.raw" "$0" && rm "$0.raw"'
  await command('sh', ['-c', fill, disk])
  await lab().virsh('pool-refresh', lab().pool)
  const image = (vm: string, name: string) =>
    muster().request('POST', `${path(vm)}/images`, { manifest: { uuid: name } })
  const copied = await image(large, 'large')
  // libvirt goes on with the copy when the agent has gone, and looks into no pool meanwhile.
  await muster().killAgentAt(copied, 'copy_disk')
  const beside = await image(uuid, 'beside')
  await muster().completed(copied)
  await muster().completed(beside)
  await command('qemu-img', ['compare', disk, `${pool}/large`])
  await muster().completed(await destroy(muster(), large))
  for (const name of ['large', 'beside']) {
    const { status } = await muster().request('DELETE', `/servers/${muster().serverUuid}/images/${name}`)
    equal(status, 204)
  }
})

test('a script prepares a running guest for its image, and the guest goes on as if nothing had been', async () => {
  await muster().completed(await act(muster(), uuid, 'start'))
  const console = await lab().console(uuid)
  await console.sees(/MUSTER-GUEST ready/, { times: 2 })
  const order = (name: string, prepare_image_script: string) => ({ manifest: { uuid: name }, prepare_image_script })
  const make = (name: string, script: string) => muster().request('POST', `${path(uuid)}/images`, order(name, script))
  equal((await muster().ended(await make('refused', 'true'))).error?.code, 'GuestAgentNotConnected')
  await console.ask('agent', /AGENT begins/)
  await eventually(async () => (await lab().virsh('dumpxml', uuid)).includes("state='connected'"), {
    withinMs: 30_000,
    what: 'the guest agent being connected',
  })
  await console.ask('sh echo remembered > /in-memory; echo kept-$?', /SH kept-0/)
  const script = `d=sda; echo prepared | dd of=/dev/$d bs=512 seek=${mark} conv=sync; sync`
  const failed = await muster().ended(await make('failed', 'echo no such thing; exit 3'))
  equal(failed.error?.code, 'PrepareScriptFailed')
  ok(failed.error?.message.includes('no such thing'), failed.error?.message)
  // Killed while the script runs in the guest: it begins again from what was kept of the VM.
  const prepared = await make('prepared', `${script}; sleep 5`)
  await muster().killAgentAt(prepared, 'prepare')
  await muster().completed(prepared)
  equal(await domstate(uuid), 'running')
  const again = await lab().console(uuid)
  await again.ask(`sh d=sda; cat /in-memory; ${readMark}; echo read`, /SH remembered before read/)
  equal(await list(uuid), [])
  equal(await inside(uuid), [])
  const cancelled = await make('cancelled', 'echo gone > /in-memory; sleep 600')
  await eventually(() => again.ask('sh cat /in-memory', /SH gone/, 2_000), { withinMs: 60_000, what: 'the script' })
  await muster().request('POST', `/tasks/${cancelled.body.id}/cancel`)
  equal((await muster().ended(cancelled)).error?.code, 'TaskCancelled')
  again.close()
  await eventually(async () => (await inside(uuid)).length === 0, {
    withinMs: 60_000,
    what: 'the VM being brought back',
  })
  equal([await domstate(uuid), await list(uuid)], ['running', []])
  const after = await lab().console(uuid)
  await after.ask(`sh d=sda; cat /in-memory; ${readMark}; echo read`, /SH remembered before read/)
  const image = await command('dd', [`if=${pool}/prepared`, 'bs=1M', 'status=none'])
  ok(image.includes('prepared'), 'the image has what the script wrote')
  const images = (await command('ls', [pool])).split('\n')
  ok(!images.includes('failed') && !images.includes('cancelled'), 'a failed one leaves nothing')
})

test('destroyed with everything, nothing is left behind', async () => {
  await muster().completed(await snapshot(uuid, 'goes-too'))
  await muster().completed(await destroy(muster(), uuid))
  for (const name of ['incremental', 'whole', 'prepared']) {
    const { status } = await muster().request('DELETE', `/servers/${muster().serverUuid}/images/${name}`)
    equal(status, 204)
  }
  equal(await lab().leftovers(), [])
})

test.run()
