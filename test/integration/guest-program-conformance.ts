/** The part of the conformance suite about what runs in VMs and what they use: what every hypervisor says, whatever is in its guests. */
import { randomUUID } from 'node:crypto'
import * as assert from 'uvu/assert'
import type { GuestProgram } from '../../hypervisor-agent/guest-programs.ts'
import type { SnapshotSubject } from './snapshot-conformance.ts'

export function guestProgramClaims({ test, limit, hypervisor, define, becomes, refuses }: SnapshotSubject): void {
  test(
    'a VM that runs has figures that only grow, and needs no guest agent for them',
    async () => {
      const { uuid } = await define()
      await refuses('VmNotRunning', hypervisor().vmStats(uuid))
      await hypervisor().startVm(uuid)
      await becomes(uuid, 'running')
      const first = await hypervisor().vmStats(uuid)
      const second = await hypervisor().vmStats(uuid)
      assert.ok(first.host_cpus > 0)
      assert.ok(second.cpu_ns >= first.cpu_ns && second.host_cpu_ns >= first.host_cpu_ns)
      assert.ok(second.memory_used_bytes <= second.memory_limit_bytes)
      await hypervisor().removeVm(uuid)
      await refuses('VmNotFound', hypervisor().vmStats(uuid))
    },
    limit,
  )

  test(
    'programs and files of a VM are refused with what is missing: the VM, its run, its guest agent',
    async () => {
      const id = randomUUID()
      const program: GuestProgram = { id, command: ['true'], env: [], folder: '/', input: false, detached: false }
      const calls = (uuid: string) => [
        () => hypervisor().startProgram(uuid, program),
        () => hypervisor().startProgram(uuid, { ...program, detached: true }),
        () => hypervisor().endProgram(uuid, id),
        () => hypervisor().forgetProgram(uuid, id),
        () => hypervisor().statGuestFile(uuid, '/'),
        () => hypervisor().readGuestFile(uuid, '/init', 0),
      ]
      const { uuid } = await define()
      for (const call of calls(randomUUID())) await refuses('VmNotFound', call())
      for (const call of calls(uuid)) await refuses('VmNotRunning', call())
      await hypervisor().startVm(uuid)
      await becomes(uuid, 'running')
      for (const call of calls(uuid)) await refuses('GuestAgentNotConnected', call())
      await hypervisor().removeVm(uuid)
    },
    limit,
  )
}
