/** The host of a simulated node. Its reboot takes the node away for a while: whoever runs the agent hears of it and stops it (node.ts). */
import type { HostControl } from '../host/host-control.ts'
import type { SimulatedHypervisor } from './simulated.ts'

export interface SimulatedHostOptions {
  hypervisor: SimulatedHypervisor
  /** From the order to the power's end, as services take to stop, and until it is back, ms. */
  goneAfterMs?: number
  downMs?: number
}

export function simulatedHostControl(options: SimulatedHostOptions): HostControl {
  const { hypervisor, goneAfterMs = 200, downMs = 1_000 } = options
  const { power } = hypervisor.world
  const listeners = new Set<(power: 'off' | 'on') => void>()
  const tell = (power: 'off' | 'on') => {
    for (const listener of [...listeners]) listener(power)
  }
  let isOrdered = false

  function cycle(): void {
    tell('off')
    power.off()
    setTimeout(() => {
      isOrdered = false
      power.on()
      tell('on')
    }, downMs)
  }

  return {
    bootId: async () => power.boot().id,
    bootTimeS: async () => power.boot().time_s,
    setHostname: async hostname => power.setHostname(hostname),
    reboot: async () => {
      power.order()
      if (isOrdered) return
      isOrdered = true
      setTimeout(cycle, goneAfterMs)
    },
    checks: async () => [{ name: 'reboot', ok: true, message: 'simulated' }],
    onPower: listener => {
      listeners.add(listener)
      return () => listeners.delete(listener)
    },
  }
}
