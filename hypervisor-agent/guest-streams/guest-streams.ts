/**
 * Streams between a caller and a VM: each waits for one connection with its token, and lives until its work has ended, its caller has
 * left, its VM has stopped, nothing went over it for too long, or its time is over. They belong to the agent and die with it.
 */
import { abortable, childOf, untilAborted } from '../abort.ts'
import { type Hypervisor, HypervisorError } from '../hypervisor.ts'
import type { Streams } from '../streams/streams.ts'
import { type Lines, openLines } from './lines.ts'

export interface GuestStreams {
  /** Where the caller is to connect. TooManyStreams. */
  offer(wish: GuestStreamWish): Promise<{ host: string; port: number; token: string }>
  close(): void
}

export interface GuestStreamWish {
  uuid: string
  /** 64 hex digits. The same again replaces a stream that nobody has opened. */
  token: string
  limits: StreamLimits
  /** Does the work and answers its last line, without the type. Gets the hypervisor as it is: the task that made the stream is over. */
  serve(work: StreamWork): Promise<object>
}

export interface StreamLimits {
  /** Nothing went either way for so long; and the whole, ms. */
  idleMs: number
  totalMs: number
}

export interface StreamWork {
  hypervisor: Hypervisor
  lines: Lines
  /** Ends with the reason why the stream ends. */
  signal: AbortSignal
}

export interface GuestStreamOptions {
  /** How long a stream waits for its caller, ms. */
  openWithinMs?: number
  /** Open or waited for, on this node and of one VM. */
  most?: { node: number; vm: number }
}

const defaults = { openWithinMs: 60_000, most: { node: 64, vm: 8 } }

export function openGuestStreams(
  streams: Streams,
  hypervisor: Hypervisor,
  options: GuestStreamOptions = {},
): GuestStreams {
  const { openWithinMs, most } = { ...defaults, ...options }
  const closing = abortable()
  /** By token: open ones, and those that wait for their caller until then. */
  const held = new Map<string, { uuid: string; until: number; stop: (reason: Error) => void }>()

  const unhear = hypervisor.onChange(({ uuid, what }) => {
    if (uuid === undefined || !['stopped', 'crashed', 'undefined'].includes(what)) return
    for (const stream of held.values()) {
      if (stream.uuid === uuid.toLowerCase())
        stream.stop(new HypervisorError('VmNotRunning', `the VM ${uuid} has ended`))
    }
  })

  function claim(uuid: string, token: string): void {
    const now = performance.now()
    for (const [key, { until }] of held) if (until <= now) held.delete(key)
    if (held.has(token)) return
    const ofVm = [...held.values()].filter(one => one.uuid === uuid).length
    if (held.size >= most.node || ofVm >= most.vm) {
      const whose = ofVm >= most.vm ? `VM ${uuid}` : 'this server'
      throw new HypervisorError('TooManyStreams', `${whose} has as many streams as may be open or waited for`)
    }
  }

  return {
    offer: async ({ uuid: named, token, limits, serve }) => {
      const uuid = named.toLowerCase()
      claim(uuid, token)
      held.set(token, {
        uuid,
        until: performance.now() + openWithinMs,
        stop: () => {
          held.delete(token)
          void streams.revoke(token)
        },
      })
      try {
        return await streams.open({
          token,
          lifetimeMs: openWithinMs,
          serve: async socket => {
            const ending = childOf(closing.signal)
            held.set(token, { uuid, until: Number.POSITIVE_INFINITY, stop: reason => ending.abort(reason) })
            const expire = (what: string) => () => ending.abort(new HypervisorError('TaskTimedOut', what))
            const total = setTimeout(expire(`the stream ends after ${limits.totalMs / 1000} s`), limits.totalMs)
            const moved = () => {
              clearTimeout(idle)
              idle = setTimeout(expire(`nothing went over the stream for ${limits.idleMs / 1000} s`), limits.idleMs)
            }
            let idle: NodeJS.Timeout | undefined
            moved()
            const lines = counted(openLines(socket), moved)
            try {
              const work = serve({ hypervisor, lines, signal: ending.signal })
              const last = await untilAborted(work, ending.signal)
              await lines.end({ type: 'end', ...last })
            } catch (error) {
              await lines.end({ type: 'end', error: told(error) })
            } finally {
              clearTimeout(total)
              clearTimeout(idle)
              ending.abort(new HypervisorError('TaskCancelled', 'the stream is over'))
              ending.release()
              held.delete(token)
            }
          },
        })
      } catch (error) {
        held.delete(token)
        throw error
      }
    },
    close: () => {
      unhear()
      closing.abort(new HypervisorError('TaskCancelled', 'the agent stops'))
    },
  }
}

/** A failure as a last line tells it. */
function told(error: unknown): { code: string; message: string } {
  const code = error instanceof HypervisorError ? error.code : 'TaskFailed'
  return { code, message: error instanceof Error ? error.message : String(error) }
}

/** The same lines; each that passes is noted. */
function counted(lines: Lines, moved: () => void): Lines {
  async function* noting<T>(source: AsyncGenerator<T>): AsyncGenerator<T> {
    for await (const item of source) {
      moved()
      yield item
    }
  }
  return {
    ...lines,
    send: async line => {
      await lines.send(line)
      moved()
    },
    received: () => noting(lines.received()),
    upload: max => noting(lines.upload(max)),
  }
}
