/**
 * The agent's connections to libvirt. One is for listing and events and never touches a guest, so it cannot hang with one.
 * Work on VMs goes over others: one call at a time for each VM, four on each connection; when calls to guests that hang have
 * taken all places, further connections are opened, up to eight.
 */
import { ConnectionError, Hypervisor as Libvirt } from 'node-libvirt'
import { HypervisorError } from '../hypervisor.ts'
import { unavailable } from './failures.ts'

export interface ConnectionOptions {
  uri: string
  socketPath: string
  /** Deadline of a call that only looks, and of one that works on a VM, ms. */
  lookDeadlineMs: number
  workDeadlineMs: number
  /** How long a call that lost its connection waits for the next, ms. */
  returnWithinMs: number
}

const inFlightPerConnection = 4
const workConnectionsMax = 8
/** Calls that may wait for their turn at one VM. */
const waitingPerVmMax = 32

export interface Connections {
  /** For listing and events. */
  readonly look: Libvirt
  /** `QEMU`, `TEST`...: libvirt's name of the driver. */
  readonly driver: string
  /**
   * Does it on a work connection, after what was asked before for the same VM. `urgent` does not wait for it: what ends a guest
   * is what frees the calls that hang with it.
   */
  work<T>(uuid: string, action: (libvirt: Libvirt) => Promise<T>, options?: { urgent?: boolean }): Promise<T>
  /** Repeats an action (which may be repeated) that lost its connection, when libvirt is back. */
  survive<T>(action: () => Promise<T>): Promise<T>
  close(): Promise<void>
}

export async function connections(options: ConnectionOptions): Promise<Connections> {
  const connect = (callDeadlineMs: number) => {
    const { uri, socketPath } = options
    const limits = { callDeadlineMs, maxInFlight: inFlightPerConnection, reconnect: { minMs: 100, maxMs: 1_000 } }
    return Libvirt.connect({ uri, socketPath, ...limits })
  }
  const look = await connect(options.lookDeadlineMs).catch(error => {
    throw unavailable(options.socketPath, options.uri, error)
  })
  const driver = await look.getType()
  const workers: Libvirt[] = []
  /** Connections being opened now. */
  let opening: Promise<Libvirt> | undefined
  let closed = false
  const turns = new Map<string, { last: Promise<void>; waiting: number }>()

  async function worker(): Promise<Libvirt> {
    const free = workers.find(one => one.connected && one.load.inFlight < inFlightPerConnection)
    if (free) return free
    if (!look.connected) throw new ConnectionError('lost', 'the connection to libvirt is lost')
    if (workers.length < workConnectionsMax) {
      opening ??= connect(options.workDeadlineMs).finally(() => {
        opening = undefined
      })
      const opened = await opening
      if (closed) {
        await opened.close()
        throw new HypervisorError('HypervisorUnavailable', 'the agent is closing its connections to libvirt')
      }
      if (!workers.includes(opened)) workers.push(opened)
      return opened
    }
    // All are busy: the one whose places come back soonest, which is the one with fewest calls that hang.
    const burden = ({ load, connected }: Libvirt) => (connected ? load.abandoned * 1_000 + load.queued : 1e9)
    return workers.reduce((best, one) => (burden(one) < burden(best) ? one : best))
  }

  /** Waits until what was asked before for this VM is over; answers how to let the next one begin. */
  async function turn(uuid: string): Promise<(when?: Promise<void>) => void> {
    const line = turns.get(uuid) ?? { last: Promise.resolve(), waiting: 0 }
    if (line.waiting >= waitingPerVmMax) {
      throw new HypervisorError('HypervisorUnavailable', `${line.waiting} calls wait for VM ${uuid} already`)
    }
    let over = () => {}
    const before = line.last
    line.last = new Promise(resolve => {
      over = resolve
    })
    line.waiting += 1
    turns.set(uuid, line)
    const done = (when = Promise.resolve()) => {
      void when.then(() => {
        line.waiting -= 1
        if (line.waiting === 0) turns.delete(uuid)
        over()
      })
    }
    if (await passes(before, options.workDeadlineMs)) return done
    done(before)
    throw new HypervisorError('HypervisorUnavailable', `an earlier call for VM ${uuid} has not come back from libvirt`)
  }

  return {
    look,
    driver,
    work: async (uuid, action, { urgent = false } = {}) => {
      const done = urgent ? () => {} : await turn(uuid)
      try {
        const result = await action(await worker())
        done()
        return result
      } catch (error) {
        // The caller is told now; the VM is free again when libvirt has really come back from the call.
        done(error instanceof ConnectionError ? error.released : undefined)
        throw error
      }
    },
    survive: async action => {
      const end = performance.now() + options.returnWithinMs
      for (;;) {
        try {
          return await action()
        } catch (error) {
          const left = end - performance.now()
          const lost = error instanceof ConnectionError && ['lost', 'unreachable'].includes(error.reason)
          if (!lost || closed || left <= 0) throw error
          if (!(await returned(look, left))) throw error
        }
      }
    },
    close: async () => {
      closed = true
      await Promise.all([look, ...workers].map(one => one.close()))
    },
  }
}

/** Whether `event` happens within `ms`. */
async function passes(event: Promise<void>, ms: number): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<false>(resolve => {
    timer = setTimeout(() => resolve(false), ms)
  })
  try {
    return await Promise.race([event.then(() => true as const), late])
  } finally {
    clearTimeout(timer)
  }
}

/** Waits for the connection's return; a moment passes in any case, for those that return before this one. */
async function returned(connection: Libvirt, ms: number): Promise<boolean> {
  const pause = new Promise<void>(resolve => setTimeout(resolve, Math.min(ms, 250)))
  if (connection.connected) {
    await pause
    return true
  }
  let stop = () => {}
  const back = new Promise<void>(resolve => {
    connection.once('reconnect', resolve)
    stop = () => connection.off('reconnect', resolve)
  })
  try {
    return await passes(back, ms)
  } finally {
    stop()
  }
}
