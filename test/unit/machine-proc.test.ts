/** What runs in a VM: the script a guest agent is given, run here by this machine's own shell, and what is told where there is none. */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { promisify } from 'node:util'
import * as assert from 'uvu/assert'
import { type Hypervisor, HypervisorError } from '../../hypervisor-agent/hypervisor.ts'
import type { VmThread } from '../../hypervisor-agent/processes.ts'
import { machine_proc } from '../../hypervisor-agent/reads/machine_proc.ts'
import type { ReadContext } from '../../hypervisor-agent/reads/read.ts'
import { suite } from '../suite.ts'

const test = suite('processes of a VM')
const uuid = '0c9f8d8e-7b5b-4a53-9c52-1a2f2f0a0009'
const sh = promisify(execFile)

type Processes = Record<string, { pid: number; name: string; source: string; cpu_ms: number }>

/** A guest whose processes are those of this machine. */
function ask(guest: { threads?: VmThread[]; agent: boolean }): Promise<Processes> {
  const hypervisor: Partial<Hypervisor> = {
    listThreads: async () => guest.threads ?? [],
    hasGuestAgent: async () => guest.agent,
    runInGuest: async (_, script) => ({ exit_code: 0, output: (await sh('sh', ['-c', script])).stdout.slice(-4096) }),
  }
  return machine_proc({ hypervisor } as ReadContext, { uuid }) as Promise<Processes>
}

test('every process of a guest is told by its agent, however many there are', async () => {
  const children: ChildProcess[] = Array.from({ length: 70 }, () => spawn('sleep', ['60']))
  try {
    const told = await ask({ agent: true })
    assert.is(told[process.pid]?.source, 'guest')
    assert.ok(children.every(child => told[child.pid ?? 0]?.name === 'sleep'))
    assert.ok((told[process.pid]?.cpu_ms ?? 0) > 0)
  } finally {
    for (const child of children) child.kill()
  }
})

test('processes that end while the portions are read hide no others', async () => {
  // Started first, so that they stand before the others, and gone when the first portion has been read.
  const gone: ChildProcess[] = Array.from({ length: 40 }, () => spawn('sleep', ['60']))
  const staying: ChildProcess[] = Array.from({ length: 70 }, () => spawn('sleep', ['60']))
  try {
    let portions = 0
    const hypervisor: Partial<Hypervisor> = {
      listThreads: async () => [],
      hasGuestAgent: async () => true,
      runInGuest: async (_, script) => {
        const output = (await sh('sh', ['-c', script])).stdout
        portions += 1
        if (portions === 1) {
          const ends = gone.map(child => once(child, 'exit'))
          for (const child of gone) child.kill()
          await Promise.all(ends)
        }
        return { exit_code: 0, output }
      },
    }
    const told = (await machine_proc({ hypervisor } as ReadContext, { uuid })) as Processes
    assert.ok(portions > 1)
    assert.equal(
      staying.filter(child => told[child.pid ?? 0]?.name !== 'sleep').map(({ pid }) => pid),
      [],
    )
  } finally {
    for (const child of [...gone, ...staying]) child.kill()
  }
})

test('without an agent in the guest the threads of its QEMU are told, and without those why nothing is', async () => {
  const threads = [{ id: 7, name: 'CPU 0/KVM', state: 'S', cpu_ms: 10 }]
  assert.equal(await ask({ threads, agent: false }), {
    7: { pid: 7, name: 'CPU 0/KVM', state: 'S', cpu_ms: 10, source: 'qemu' },
  })
  const refusal = await ask({ agent: false }).catch((error: HypervisorError) => error)
  assert.instance(refusal, HypervisorError)
  assert.is((refusal as HypervisorError).code, 'GuestAgentNotConnected')
})

test.run()
