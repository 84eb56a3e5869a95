/** What every hypervisor's `NodeStorage` must do: claims of the conformance suite. */
import * as assert from 'uvu/assert'
import type { VmSpec } from '../../actors/contract/vm.ts'
import type { Hypervisor } from '../../hypervisor-agent/hypervisor.ts'
import type { Suite } from '../suite.ts'

export function nodeStorageClaims(subject: {
  test: Suite
  limit: { limitMs: number }
  hypervisor: () => Hypervisor
  define: () => Promise<VmSpec>
}): void {
  const { test, limit, define } = subject
  test(
    'the pool can be made again and again, and keeps what is in it',
    async () => {
      const { uuid } = await define()
      const before = await subject.hypervisor().storage()
      await subject.hypervisor().makePool()
      await subject.hypervisor().makePool()
      assert.equal((await subject.hypervisor().storage()).vm_capacity_bytes, before.vm_capacity_bytes)
      await subject.hypervisor().removeVm(uuid)
    },
    limit,
  )

  test(
    'what VMs have left is removed, and nothing of a VM that is there',
    async () => {
      const { uuid } = await define()
      const before = await subject.hypervisor().storage()
      assert.equal(await subject.hypervisor().removeLeftovers(), [])
      assert.equal((await subject.hypervisor().storage()).vm_capacity_bytes, before.vm_capacity_bytes)
      assert.is((await subject.hypervisor().loadVm(uuid))?.disks.length, 1)
      await subject.hypervisor().removeVm(uuid)
    },
    limit,
  )
}
