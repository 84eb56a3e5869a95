/** Looking at simulated guests: their definition, and the switch ports of running ones, which tests may bend. */
import type { PortPlace } from '../../actors/contract/found.ts'
import type { NetworkSummary } from '../../actors/contract/server.ts'
import type { NicSpec } from '../../actors/contract/vm.ts'
import type { Findings } from '../findings.ts'
import { foundDisks } from '../shape.ts'
import { pendingParts, shapeOf } from './devices.ts'
import type { Guest } from './guests.ts'

export interface FindingParts {
  call<T>(name: keyof Findings, uuid: string, effect: () => T): Promise<T>
  find(uuid: string): Guest | undefined
  need(uuid: string): Guest
  save(): void
  nicTags: Readonly<Record<string, string>>
  network(name: string): NetworkSummary | undefined
}

export function simulatedFindings({ call, find, need, save, nicTags, network }: FindingParts): Findings {
  const placeOf = (nic: NicSpec): PortPlace => {
    const on = nic.network === undefined ? undefined : network(nic.network)
    if (on) return { bridge: on.bridge ?? null, vlan_id: on.vlan ?? null }
    return { bridge: nic.bridge ?? nicTags[nic.nic_tag ?? ''] ?? null, vlan_id: nic.vlan_id || null }
  }
  const portsOf = (guest: Guest) =>
    (guest.hardware?.nics ?? []).map((nic, n) => {
      const mac = nic.mac.toLowerCase()
      const as = placeOf(nic)
      const name = `vnet${(guest.domain_id ?? 0) * 8 + n}`
      return { mac, interface: name, as, is: guest.bent_ports?.[mac] ?? as }
    })

  return {
    lookAtVm: uuid =>
      call('lookAtVm', uuid, () => {
        const guest = find(uuid)
        if (!guest) return undefined
        const { memory_mib, vcpus, autoboot, alias, owner_uuid, cpu_cap, quota_gib, disks, nics, tags } = shapeOf(guest)
        return {
          uuid: guest.spec.uuid,
          name: guest.spec.name,
          state: guest.state,
          changed_at: guest.modified_at,
          definition: {
            ...{ ram: memory_mib, vcpus, autoboot, tags, nics },
            ...{ alias: alias ?? null, owner_uuid: owner_uuid ?? null },
            ...{ cpu_cap: cpu_cap ?? null, quota: quota_gib ?? null },
            disks: foundDisks(guest.spec.uuid, disks),
          },
          ports: portsOf(guest),
          pending: pendingParts(guest),
        }
      }),
    mendPorts: (uuid, macs) =>
      call('mendPorts', uuid, () => {
        const guest = need(uuid)
        const isMeant = (mac: string) => macs === undefined || macs.some(one => one.toLowerCase() === mac)
        const bent = portsOf(guest).filter(
          ({ mac, as, is }) => isMeant(mac) && (as.bridge !== is.bridge || as.vlan_id !== is.vlan_id),
        )
        const [mended, pending] = [true, false].map(onBridge =>
          bent.filter(({ as, is }) => (as.bridge === is.bridge) === onBridge).map(({ mac }) => mac),
        ) as [string[], string[]]
        for (const mac of mended) delete guest.bent_ports?.[mac]
        save()
        return { mended, pending }
      }),
  }
}
