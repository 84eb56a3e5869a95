/** How the node's parts are, with when that was seen: told with every status event, and looked up anew when somebody asks. */
import type { HealthItem } from '../actors/contract/server.ts'
import type { HostInventory, Hypervisor } from './hypervisor.ts'

export type Health = Record<string, HealthItem>

/** Of a node whose hypervisor has just told all this. */
export function healthOf({ versions, bridges }: HostInventory, at: string): Health {
  const { libvirt, hypervisor, qemu, openvswitch } = versions
  const parts = [libvirt && `libvirt ${libvirt}`, qemu && `QEMU ${qemu}`].filter(Boolean)
  const names = bridges.map(({ name }) => name).join(', ') || 'none'
  return {
    hypervisor: { ok: true, message: parts.join(', ') || hypervisor || 'it answers', at },
    openvswitch: openvswitch
      ? { ok: true, message: `Open vSwitch ${openvswitch}; bridges: ${names}`, at }
      : { ok: null, message: `Open vSwitch does not say; bridges seen: ${names}`, at },
  }
}

/** Of a node whose hypervisor gave this instead of an answer. */
export function unhealthy(error: unknown, at: string): Health {
  const message = error instanceof Error ? error.message : String(error)
  return { hypervisor: { ok: false, message: message.slice(0, 500), at } }
}

/** Looks now. Never rejects: what does not answer is what is told. */
export async function lookAtHealth(hypervisor: Hypervisor, now: () => number): Promise<Health> {
  const at = new Date(now()).toISOString()
  try {
    await hypervisor.ping()
    const [host, { pool, size_bytes, available_bytes }] = await Promise.all([
      hypervisor.inventory(),
      hypervisor.storage(),
    ])
    const gib = (bytes: number) => Math.floor(bytes / 1024 ** 3)
    const message = `pool ${pool}: ${gib(available_bytes)} of ${gib(size_bytes)} GiB free`
    return { ...healthOf(host, at), storage: { ok: available_bytes > 0, message, at } }
  } catch (error) {
    return unhealthy(error, at)
  }
}
