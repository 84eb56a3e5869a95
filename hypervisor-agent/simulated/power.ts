/**
 * The power of a simulated host: its reboot stops every guest at once, begins another boot, and starts the guests that start with
 * their host. What is remembered of it outlives the agent, so a reboot that was certain to come comes even if the agent dies first.
 */
import { randomUUID } from 'node:crypto'
import type { Guest, GuestStore } from './guests.ts'

export interface Power {
  boot(): { id: string; time_s: number }
  /** How often it was booted, the first time included. */
  boots(): number
  /** A reboot is certain to come. */
  order(): void
  /** Every guest stops, as when the plug is pulled. */
  off(): void
  /** Another boot begins. */
  on(): void
  /** Does the reboot that a process before this one ordered. */
  catchUp(): void
  /** The name it was given; undefined: that of its seed. */
  hostname(): string | undefined
  setHostname(hostname: string): void
}

export function powerOf(options: {
  store: GuestStore
  /** Seconds since the epoch, of a host that was never rebooted. */
  firstBootS: number
  now: () => number
  start: (guest: Guest) => void
  stop: (guest: Guest) => void
  setOpen: (isOpen: boolean) => void
}): Power {
  const { store, now } = options
  store.machine.boot ??= { id: randomUUID(), time_s: options.firstBootS, count: 1 }
  const boot = () => store.machine.boot ?? { id: '', time_s: 0, count: 0 }
  const running = () => [...store.guests.values()].filter(guest => guest.state === 'running')

  function off(): void {
    for (const guest of running()) options.stop(guest)
    options.setOpen(false)
  }

  function on(): void {
    const { reboot_due: _, ...rest } = store.machine
    // As on a real host, two boots may begin in one second: their ids tell them apart.
    const timeS = Math.max(Math.floor(now() / 1000), boot().time_s)
    store.machine = { ...rest, boot: { id: randomUUID(), time_s: timeS, count: boot().count + 1 } }
    store.save()
    options.setOpen(true)
    for (const guest of store.guests.values()) {
      if (guest.spec.autoboot && guest.state === 'stopped') startIfItCan(guest)
    }
  }

  /** A host with too little memory for all starts those that fit. */
  function startIfItCan(guest: Guest): void {
    try {
      options.start(guest)
    } catch {
      // It stays stopped, which is what is reported.
    }
  }

  return {
    boot,
    boots: () => boot().count,
    off,
    on,
    order: () => {
      store.machine.reboot_due = true
      store.save()
    },
    catchUp: () => {
      if (!store.machine.reboot_due) return
      off()
      on()
    },
    hostname: () => store.machine.hostname,
    setHostname: hostname => {
      store.machine.hostname = hostname
      store.save()
    },
  }
}
