/**
 * What `vmadm info` tells of a running VM, as text: clients parse the string themselves and refuse an object (cnapi-behaviour §9.1).
 * `types` chooses parts; absent, empty or `all` means everything.
 */
import { HypervisorError, type VmDetail } from '../hypervisor.ts'
import type { ReadHandlers } from './read.ts'

export const machine_info: ReadHandlers['machine_info'] = async ({ hypervisor }, { uuid, types = [] }) => {
  const vm = await hypervisor.loadVm(uuid)
  if (!vm) throw new HypervisorError('VmNotFound', `there is no VM ${uuid} on this server`)
  if (vm.state !== 'running') throw new HypervisorError('VmNotRunning', `the VM ${uuid} is not running`)
  const wanted = types.length === 0 || types.includes('all') ? Object.keys(parts) : types
  const info: Record<string, unknown> = {}
  for (const type of wanted) {
    const part = Object.hasOwn(parts, type) ? parts[type]?.(vm) : undefined
    if (part !== undefined) info[type] = part
  }
  return JSON.stringify(info)
}

/** Display 0 of VNC listens on this port. */
const firstVncPort = 5900

const parts: Readonly<Record<string, (vm: VmDetail) => unknown>> = {
  name: vm => ({ name: vm.name }),
  uuid: vm => ({ UUID: vm.uuid }),
  status: vm => ({ running: true, singlestep: false, status: vm.domain_state ?? 'running' }),
  vnc: vm => vm.vnc && { ...vm.vnc, display: vm.vnc.port - firstVncPort },
  block: vm =>
    vm.disks.map(({ target, path, size_bytes }) => ({
      device: target,
      type: 'disk',
      inserted: { file: path, size_bytes },
    })),
  cpus: vm => Array.from({ length: vm.vcpus }, (_, CPU) => ({ CPU })),
  chardev: vm => (vm.console_log ? [{ label: 'serial0', filename: `file:${vm.console_log}` }] : []),
}
