/** The part of the conformance suite about what is really there of a VM. */
import { randomUUID } from 'node:crypto'
import * as assert from 'uvu/assert'
import { changedParts, changedShape } from '../../hypervisor-agent/shape.ts'
import type { DeviceSubject } from './device-conformance.ts'

type FindingSubject = Pick<DeviceSubject, 'test' | 'limit' | 'hypervisor' | 'define' | 'refuses' | 'nicTag' | 'diskMib'>

export function findingClaims({ test, limit, hypervisor, define, refuses, nicTag, diskMib }: FindingSubject): void {
  const mac = '52:54:00:66:00:01'

  test(
    'what is found of a VM is what it was made from, and after a change what it was changed to',
    async () => {
      const { uuid, memory_mib, name } = await define({
        ...{ disks: [{ size_mib: diskMib }, { size_mib: diskMib }], nics: [{ mac, nic_tag: nicTag, vlan_id: 10 }] },
        ...{ alias: 'as ordered', tags: { a: 1 }, quota_gib: 3 },
      })
      const made = await hypervisor().lookAtVm(uuid)
      assert.equal(made?.definition, {
        ...{ ram: memory_mib, vcpus: 1, autoboot: true, alias: 'as ordered', owner_uuid: null },
        ...{ cpu_cap: null, quota: 3, tags: { a: 1 } },
        disks: [0, 1].map(slot => ({ slot, size_mib: diskMib })),
        nics: [{ mac, nic_tag: nicTag, vlan_id: 10 }],
      })
      assert.equal([made?.uuid, made?.name, made?.state, made?.ports, made?.pending], [uuid, name, 'stopped', [], []])
      const before = await hypervisor().shapeOf(uuid)
      const wanted = changedShape(uuid, before, { vcpus: 2, update_nics: [{ mac, vlan_id: 20 }] }, randomUUID())
      await hypervisor().reshapeVm(uuid, wanted, { parts: changedParts(before, wanted) })
      const changed = await hypervisor().lookAtVm(uuid)
      assert.equal([changed?.definition.vcpus, changed?.definition.nics[0]?.vlan_id], [2, 20])
      assert.ok((changed?.changed_at ?? 0) >= (made?.changed_at ?? 0))
      await hypervisor().removeVm(uuid)
    },
    limit,
  )

  test(
    'of a VM that is not there nothing is found, and no port is mended',
    async () => {
      assert.is(await hypervisor().lookAtVm(randomUUID()), undefined)
      await refuses('VmNotFound', hypervisor().mendPorts(randomUUID()))
      const { uuid } = await define({ nics: [{ mac, nic_tag: nicTag }] })
      assert.equal(await hypervisor().mendPorts(uuid), { mended: [], pending: [] }, 'one that does not run has none')
      await hypervisor().removeVm(uuid)
    },
    limit,
  )
}
