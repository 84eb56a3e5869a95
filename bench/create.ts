/**
 * What Muster adds to making a VM: time from the POST to the end of its task, beside the same definition and start asked of libvirt directly, in
 * turns on the same machine; and how long each of 50 creates at once waits for its agent to begin.
 */
import { randomUUID } from 'node:crypto'
import { join } from 'node:path'
import * as v from 'valibot'
import { VmSpec } from '../actors/contract/vm.ts'
import { libvirtHypervisor } from '../hypervisor-agent/libvirt/libvirt.ts'
import { openVswitch } from '../hypervisor-agent/openvswitch/bridges.ts'
import { startMuster as startFixture } from '../test/muster-fixture.ts'
import { type Lab, startLab, whyNoLab } from '../test/system/lab/lab.ts'
import { startMuster } from '../test/system/lab/muster.ts'
import type { Scope } from './scope.ts'
import { type Row, whole } from './table.ts'

export async function create(scope: Scope): Promise<Row[]> {
  return [...(await atOnce(scope)), ...(await besideLibvirt(scope))]
}

/** Aim: this share of the direct way, and this much more, ms. */
const AIM = { share: 1.05, moreMs: 30 }
const libvirtSocket = '/var/run/libvirt/libvirt-sock'

async function besideLibvirt(scope: Scope): Promise<Row[]> {
  const reason = await whyNoLab()
  if (reason) return [{ what: 'create to running, libvirt', figure: 'not measured', detail: reason }]
  scope.say('starting libvirt, Open vSwitch and Muster')
  const lab = await startLab()
  scope.defer(() => lab.stop())
  const consoles = join(lab.folder, 'consoles')
  const muster = await startMuster({
    dataDir: join(lab.folder, 'data'),
    env: { HYPERVISOR: 'libvirt', DOMAIN_TYPE: 'qemu', STORAGE_POOL: lab.pool, CONSOLE_DIR: consoles },
  })
  scope.defer(() => muster.stop())
  const direct = await directly(lab, consoles)
  scope.defer(() => direct.close())

  const through = async (): Promise<number> => {
    const began = performance.now()
    const answer = await muster.request('POST', `/servers/${muster.serverUuid}/vms`, payload(lab))
    await muster.completed(answer)
    const tookMs = performance.now() - began
    await muster.completed(await muster.request('DELETE', `/servers/${muster.serverUuid}/vms/${answer.body.vm_uuid}`))
    return tookMs
  }
  const turns = scope.short ? 1 : 12
  const times: { direct: number; through: number }[] = []
  // The first of each is for the compiler and for libvirt's caches.
  await direct.make()
  await through()
  for (let turn = 0; turn < turns; turn += 1) {
    scope.say(`VM ${turn + 1} of ${turns}, each way`)
    const order = turn % 2 === 0
    const first = order ? await direct.make() : await through()
    const second = order ? await through() : await direct.make()
    times.push(order ? { direct: first, through: second } : { direct: second, through: first })
  }
  const directMs = median(times.map(({ direct }) => direct))
  const throughMs = median(times.map(({ through }) => through))
  const limitMs = directMs * AIM.share + AIM.moreMs
  return [
    {
      what: 'create to running, libvirt',
      figure: `p50 ${throughMs.toFixed(0)} ms`,
      aim: { text: `at most ${AIM.share} of direct + ${AIM.moreMs} ms`, met: throughMs <= limitMs },
      detail: `directly ${directMs.toFixed(0)} ms: ${(throughMs - directMs).toFixed(0)} ms more; ${turns} VMs each way, in turns`,
    },
  ]
}

/** The same disk, definition and start, asked of libvirt by the same code in this process. */
async function directly(lab: Lab, consoleFolder: string): Promise<{ make(): Promise<number>; close(): Promise<void> }> {
  const nicTags = {}
  const hypervisor = libvirtHypervisor({
    uri: lab.uri,
    socketPath: libvirtSocket,
    domainType: 'qemu',
    pool: lab.pool,
    poolPath: join(lab.folder, 'pool'),
    consoleFolder,
    nicTags,
    openvswitch: openVswitch({ nicTags, note: () => {} }),
  })
  await hypervisor.open()
  return {
    make: async () => {
      const uuid = randomUUID()
      const { image, ram, vcpus } = sizes(lab)
      const disks = [{ size_mib: image.size_mib, image: image.name }]
      const spec = v.parse(VmSpec, { uuid, name: uuid, memory_mib: ram, vcpus, disks, nics: [] })
      const began = performance.now()
      await hypervisor.defineVm(spec, { taskId: randomUUID() })
      await hypervisor.startVm(uuid)
      const tookMs = performance.now() - began
      await hypervisor.removeVm(uuid)
      return tookMs
    },
    close: () => hypervisor.close(),
  }
}

const sizes = ({ image }: Lab) => ({ ram: 128, vcpus: 1, image: { name: image, size_mib: 64 } })

function payload(lab: Lab): object {
  const { ram, vcpus, image } = sizes(lab)
  return { ram, vcpus, brand: 'kvm', disks: [{ image_uuid: image.name, size: image.size_mib }], nics: [] }
}

/** All POSTs at once; each is timed to the moment its agent asks the hypervisor to start it. */
async function atOnce(scope: Scope): Promise<Row[]> {
  const creates = scope.short ? 5 : 50
  scope.say(`${creates} creates at once on a simulated hypervisor`)
  const muster = await startFixture()
  scope.defer(() => muster.stop())
  const [hypervisor] = muster.hypervisors
  const [server] = muster.servers
  const gateway = await muster.gateway()
  const startedAt = new Map<string, number>()
  const start = hypervisor!.startVm.bind(hypervisor)
  hypervisor!.startVm = uuid => {
    if (!startedAt.has(uuid)) startedAt.set(uuid, performance.now())
    return start(uuid)
  }
  const one = async (): Promise<{ answeredMs: number; beganMs: number }> => {
    const uuid = randomUUID()
    const posted = performance.now()
    const { status, body } = await gateway.ask('POST', `/servers/${server}/vms`, { body: { uuid, ram: 128 } })
    if (status !== 200) throw new Error(`a create was refused: ${status} ${JSON.stringify(body)}`)
    const answeredMs = performance.now() - posted
    const task = await gateway.ask('GET', `/tasks/${body.id}/wait?timeout=60`)
    if (task.body.status !== 'complete') throw new Error(`a create failed: ${JSON.stringify(task.body)}`)
    return { answeredMs, beganMs: (startedAt.get(uuid) ?? Number.NaN) - posted }
  }
  await one()
  const took = await Promise.all(Array.from({ length: creates }, one))
  const began = took.map(({ beganMs }) => beganMs).sort((a, b) => a - b)
  const answered = took.map(({ answeredMs }) => answeredMs).sort((a, b) => a - b)
  const at = (list: number[], share: number) => list[Math.floor(share * (list.length - 1))]!.toFixed(0)
  return [
    {
      what: `${whole(creates)} creates at once, to their start`,
      figure: `p50 ${at(began, 0.5)} ms`,
      detail: `p99 ${at(began, 0.99)} ms; POST answered p50 ${at(answered, 0.5)} ms, p99 ${at(answered, 0.99)} ms; one simulated node, all processes on this machine`,
    },
  ]
}

function median(times: number[]): number {
  const sorted = times.sort((a, b) => a - b)
  return sorted[sorted.length >> 1]!
}
