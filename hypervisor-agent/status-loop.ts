/**
 * When a status event goes out: soon after a change and once more a little later, not more often than it may, at least each
 * minute, and only the newest.
 */
import { abortable, pause } from './abort.ts'
import type { Log } from './log.ts'

export interface StatusTimings {
  /** After a change, so that several go out as one, ms. */
  settleMs: number
  /** Least time between two, ms. */
  apartMs: number
  /**
   * After a change, the second one, ms. The owner leaves out of a report what it changed itself within two seconds of it, since
   * clocks differ; a VM that goes just after a task of it would else be told only with the next regular one.
   */
  againMs: number
  /** Longest time between two, ms. */
  everyMs: number
}

export const statusTimings: StatusTimings = { settleMs: 200, apartMs: 1_000, againMs: 5_000, everyMs: 60_000 }

/** A status that cannot be taken is tried again after up to so many times `apartMs`. */
const backOffMax = 8

export interface StatusLoop {
  /** Something may have changed. */
  changed(): void
  stop(): void
}

/** `send` takes a fresh sample and says whether it was heard; if not, it is asked again after `apartMs`. */
export function openStatusLoop(
  send: (signal: AbortSignal) => Promise<boolean>,
  { settleMs, apartMs, againMs, everyMs }: StatusTimings,
  log: Log,
): StatusLoop {
  const stopping = abortable()
  const { signal } = stopping
  let isDirty = false
  let failures = 0
  let wake = () => {}

  const loop = async () => {
    let hasChanged = false
    for (;;) {
      // Phases differ between nodes, so that a fleet does not report at the same moment.
      if (!isDirty) await nextChange(hasChanged ? againMs : everyMs * (0.75 + Math.random() / 4))
      hasChanged = isDirty
      await pause(settleMs, signal)
      isDirty = false
      let isHeard = false
      try {
        isHeard = await send(signal)
        failures = 0
      } catch (error) {
        signal.throwIfAborted()
        failures += 1
        // Once, not each second: a hypervisor that is away for an hour is one thing to know.
        if (failures === 1) log.warn({ err: error }, 'the status cannot be taken; trying again until it can')
      }
      signal.throwIfAborted()
      if (!isHeard) isDirty = true
      await pause(Math.max(0, apartMs * Math.min(2 ** failures, backOffMax) - settleMs), signal)
    }
  }
  const nextChange = (ms: number) =>
    new Promise<void>(resolve => {
      const timer = setTimeout(resolve, ms)
      wake = () => {
        clearTimeout(timer)
        resolve()
      }
    })
  loop().catch(() => {})

  return {
    changed: () => {
      isDirty = true
      wake()
    },
    stop: () => {
      stopping.abort(new Error('the agent stops'))
      wake()
    },
  }
}
