/**
 * The XML of a VM's domain. Every disk has an address of its own on one virtio-scsi controller, because libvirt's choice
 * changes their order and loses the eighth; there are spare PCIe ports, because q35 has room for one more device otherwise.
 */
import type { VmSpec } from '../../actors/contract/vm.ts'
import type { Installer } from '../hypervisor.ts'
import { targetOf } from '../shape.ts'
import { metadataElement, type VmMetadata } from './vm-metadata.ts'
import { escapeXml, type Xml, xml } from './xml.ts'

export type DomainType = 'kvm' | 'qemu' | 'test'

/** Where a NIC plugs in: a libvirt network, or an Open vSwitch bridge with an optional VLAN. */
export type NicPlace = { network: string } | { bridge: string; vlan?: number }

export interface DomainParts {
  /** `test` is for libvirt's test driver, which knows no machine types. */
  type: DomainType
  /** Files of the disks, in order. */
  diskPaths: string[]
  /** Of each NIC of the spec. */
  nics: NicPlace[]
  consoleLog: string
  metadata: VmMetadata
}

const sparePorts = 8

/** Where a QEMU guest agent in the guest is heard, if one runs there. */
export const guestAgentName = 'org.qemu.guest_agent.0'
const guestAgentChannel = xml`<channel type="unix"><target type="virtio" name="${guestAgentName}"/></channel>`

export function domainXml(spec: VmSpec, parts: DomainParts): string {
  const real = parts.type !== 'test'
  // One for each NIC, the SCSI controller, the serial controller and the balloon, then those for what is attached later.
  const ports = spec.nics.length + 3 + sparePorts
  return xml`<domain type="${parts.type}">
<name>${spec.name}</name>
<uuid>${spec.uuid.toLowerCase()}</uuid>
${titleElement(spec.alias)}
<metadata>${metadataElement(parts.metadata)}</metadata>
<memory unit="MiB">${spec.memory_mib}</memory>
<vcpu>${spec.vcpus}</vcpu>
<os>${real ? xml`<type arch="x86_64" machine="q35">hvm</type>` : xml`<type>hvm</type>`}<boot dev="hd"/></os>
<features><acpi/><apic/></features>
${parts.type === 'kvm' ? xml`<cpu mode="host-model"/>` : undefined}
<clock offset="utc"/>
<on_poweroff>destroy</on_poweroff>
<on_reboot>restart</on_reboot>
<on_crash>destroy</on_crash>
<devices>
<controller type="pci" index="0" model="pcie-root"/>
${Array.from({ length: ports }, (_, n) => xml`<controller type="pci" index="${n + 1}" model="pcie-root-port"/>`)}
<controller type="scsi" index="0" model="virtio-scsi"/>
${parts.diskPaths.map((path, n) => diskElement(path, spec.disks[n]?.slot ?? n))}
${spec.nics.map((nic, n) => networkInterface(nic.mac, parts.nics[n] as NicPlace))}
<serial type="pty"><log file="${parts.consoleLog}" append="on"/><target port="0"/></serial>
<console type="pty"><target type="serial" port="0"/></console>
${real ? guestAgentChannel : undefined}
<graphics type="vnc" port="-1" autoport="yes" listen="127.0.0.1"><listen type="address" address="127.0.0.1"/></graphics>
<video><model type="vga"/></video>
<memballoon model="virtio"/>
${real ? xml`<panic model="isa"/>` : undefined}
</devices>
</domain>`.text
}

/**
 * The same domain for one start from a kernel: its reboot ends it, so that the stored definition, which boots from disk, is next.
 * `definition` is XML as libvirt gave it.
 */
export function installerXml(definition: string, installer: Installer): string {
  const boot = xml`<kernel>${installer.kernelPath}</kernel>
<initrd>${installer.initrdPath}</initrd>
<cmdline>${installer.cmdline}</cmdline>
`.text
  const started = definition
    .replace(/<os[ >][\s\S]*?<\/os>/, os => os.replace(/<boot [^>]*\/>/g, '').replace('</os>', () => `${boot}</os>`))
    .replace(/<on_reboot>[^<]*<\/on_reboot>/, '<on_reboot>destroy</on_reboot>')
  if (!started.includes(boot) || !started.includes('<on_reboot>destroy</on_reboot>')) {
    throw new TypeError('the definition has no <os> or no <on_reboot> to change')
  }
  return started
}

/** `slot`: 0 is sda. */
export function diskElement(path: string, slot: number): Xml {
  return xml`<disk type="file" device="disk">
<driver name="qemu" type="qcow2" discard="unmap"/>
<source file="${path}"/>
<target dev="${targetOf(slot)}" bus="scsi"/>
<address type="drive" controller="0" bus="0" target="${slot}" unit="0"/>
</disk>`
}

export function networkInterface(mac: string, place: NicPlace): Xml {
  const head = xml`<mac address="${mac.toLowerCase()}"/>`
  if ('network' in place) {
    return xml`<interface type="network">${head}<source network="${place.network}"/><model type="virtio"/></interface>`
  }
  const vlan = place.vlan === undefined ? undefined : xml`<vlan><tag id="${place.vlan}"/></vlan>`
  return xml`<interface type="bridge">${head}<source bridge="${place.bridge}"/>
<virtualport type="openvswitch"/>${vlan}<model type="virtio"/></interface>`
}

// libvirt refuses a title with line breaks, and an empty one.
export function titleElement(alias: string | undefined): Xml | undefined {
  const line = alias?.replace(/[\r\n]+/g, ' ').trim()
  return line ? xml`<title>${line}</title>` : undefined
}

export function networkXml({ name, bridge, vlan }: { name: string; bridge: string; vlan: number }): string {
  return xml`<network>
<name>${name}</name>
<forward mode="bridge"/>
<bridge name="${bridge}"/>
<virtualport type="openvswitch"/>
<vlan><tag id="${vlan}"/></vlan>
</network>`.text
}

/** A qcow2 volume; with `backing` it begins as that file looks and takes only what is changed. */
export function volumeXml(volume: {
  name: string
  capacityBytes: number
  backing?: { path: string; format: string }
}): string {
  const { backing } = volume
  const base =
    backing && xml`<backingStore><path>${backing.path}</path><format type="${backing.format}"/></backingStore>`
  return xml`<volume>
<name>${volume.name}</name>
<capacity unit="bytes">${volume.capacityBytes}</capacity>
<allocation>0</allocation>
<target><format type="qcow2"/></target>
${base}
</volume>`.text
}

export function poolXml({ name, path }: { name: string; path: string }): string {
  return `<pool type="dir"><name>${escapeXml(name)}</name><target><path>${escapeXml(path)}</path></target></pool>`
}
