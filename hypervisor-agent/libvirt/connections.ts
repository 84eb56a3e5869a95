/**
 * The agent's connections to libvirt. One is for listing and events and never touches a guest, so it cannot hang with one; calls that
 * hang with something else, as a storage pool whose server is away, are left behind on it, and others like it take over its listings.
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
}

const placesPerConnection = 4
/** Connections for looking: another one is opened when two calls have not come back from the one in use. */
const lookConnectionsMax = 4
const hungLooks = 2
const workConnectionsMax = 8
/** Of those, for urgent work: ending guests that hang must be possible when they have taken all other places. */
const urgentConnections = 1
/** Calls that may wait for their turn at one VM. */
const waitingPerVmMax = 32

export interface Connections {
  /** For events, as long as the connections last. */
  readonly events: Libvirt
  /** For listing: asked for anew each time, as another one may have taken over. */
  readonly look: Libvirt
  /** `QEMU`, `TEST`...: libvirt's name of the driver. */
  readonly driver: string
  /**
   * Does it on a work connection, after what was asked before for the same VM. `urgent` does not wait for it: what ends a guest
   * is what frees the calls that hang with it.
   */
  work<T>(uuid: string, action: (libvirt: Libvirt) => Promise<T>, options?: { urgent?: boolean }): Promise<T>
  /** Repeats an action (which may be repeated) that lost its connection, when libvirt is back within `ms`. */
  survive<T>(action: () => Promise<T>, ms: number): Promise<T>
  close(): Promise<void>
}

export async function connections(options: ConnectionOptions): Promise<Connections> {
  const connect = (callDeadlineMs: number) => {
    const { uri, socketPath } = options
    const limits = { callDeadlineMs, maxInFlight: placesPerConnection, reconnect: { minMs: 100, maxMs: 1_000 } }
    return Libvirt.connect({ uri, socketPath, ...limits })
  }
  const look = await connect(options.lookDeadlineMs).catch(error => {
    throw unavailable(options.socketPath, options.uri, error)
  })
  const driver = await look.getType()
  const lookers = [look]
  let isOpeningLooker = false
  const workers: Worker[] = []
  /** The connection being opened now: one at a time, so that a burst opens no more than it fills. */
  let opening: Promise<void> | undefined
  let closed = false
  const turns = new Map<string, { last: Promise<void>; waiting: number }>()

  /** A place on a work connection. */
  async function acquire(urgent: boolean): Promise<Worker> {
    const most = urgent ? workConnectionsMax : workConnectionsMax - urgentConnections
    for (;;) {
      const open = workers.slice(0, most)
      const free = open.find(({ libvirt, taken }) => libvirt.connected && taken < placesPerConnection)
      if (free) return take(free)
      if (!look.connected) throw new ConnectionError('lost', 'the connection to libvirt is lost')
      // All are full: the one with the shortest line.
      if (open.length === most) return take(open.reduce((a, b) => (b.taken < a.taken ? b : a)))
      opening ??= openWorker().finally(() => {
        opening = undefined
      })
      await opening
    }
  }

  /** The one with the fewest calls on it. One that hangs is used again when libvirt has come back from its calls. */
  function looker(): Libvirt {
    const open = lookers.filter(one => one.connected)
    const best = open.reduce((a, b) => (lineOf(b) < lineOf(a) ? b : a), open[0] ?? look)
    const isHung = best.load.abandoned >= hungLooks
    if (isHung && !isOpeningLooker && lookers.length < lookConnectionsMax) void openLooker()
    return best
  }

  async function openLooker(): Promise<void> {
    isOpeningLooker = true
    try {
      const libvirt = await connect(options.lookDeadlineMs)
      if (closed) await libvirt.close()
      else lookers.push(libvirt)
    } catch {
      // Whoever looks next tries again.
    } finally {
      isOpeningLooker = false
    }
  }

  async function openWorker(): Promise<void> {
    const libvirt = await connect(options.workDeadlineMs)
    if (closed) {
      await libvirt.close()
      throw new ConnectionError('closed', 'the connections to libvirt are closed')
    }
    workers.push({ libvirt, taken: 0 })
  }

  /** Waits until what was asked before for this VM is over; answers how to let the next one begin. */
  async function turn(uuid: string): Promise<(when: Promise<void>) => void> {
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
    const done = (when: Promise<void>) => {
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
    events: look,
    get look() {
      return looker()
    },
    driver,
    work: async (uuid, action, { urgent = false } = {}) => {
      const done = urgent ? (_when: Promise<void>) => {} : await turn(uuid)
      let worker: Worker | undefined
      let over = Promise.resolve()
      try {
        worker = await acquire(urgent)
        return await action(worker.libvirt)
      } catch (error) {
        // The caller is told now; VM and place are free again when libvirt has really come back from the call.
        if (error instanceof ConnectionError) over = error.released
        throw error
      } finally {
        done(over)
        void over.then(() => {
          if (worker) worker.taken -= 1
        })
      }
    },
    survive: async (action, ms) => {
      const end = performance.now() + ms
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
      await Promise.all([...lookers, ...workers.map(one => one.libvirt)].map(one => one.close()))
    },
  }
}

interface Worker {
  libvirt: Libvirt
  /** Pieces of work on it, those included whose caller has gone but whose call has not come back. */
  taken: number
}

const lineOf = ({ load }: Libvirt) => load.inFlight + load.queued

function take(worker: Worker): Worker {
  worker.taken += 1
  return worker
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
