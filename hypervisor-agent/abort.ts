/** Giving up on what may never answer: the wait ends with the signal's reason, and nothing begins after it. */
import { setMaxListeners } from 'node:events'
import type { Hypervisor } from './hypervisor.ts'

/** A controller on whose signal any number of things may wait; Node warns of more than ten elsewhere. */
export function abortable(): AbortController {
  const controller = new AbortController()
  setMaxListeners(0, controller.signal)
  return controller
}

/** The promise, or a rejection with the signal's reason, whichever comes first. */
export function untilAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    const aborted = () => reject(signal.reason)
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', aborted))
    if (signal.aborted) aborted()
    else signal.addEventListener('abort', aborted, { once: true })
  })
}

/** A controller that also aborts when its parent does. `release` it when done: the parent lives long. */
export function childOf(parent: AbortSignal): AbortController & { release(): void } {
  const child = abortable()
  const aborted = () => child.abort(parent.reason)
  if (parent.aborted) aborted()
  else parent.addEventListener('abort', aborted, { once: true })
  return Object.assign(child, { release: () => parent.removeEventListener('abort', aborted) })
}

/** Runs work that is given up, with that reason, after so long or when the parent aborts. */
export async function within<T>(
  ms: number,
  parent: AbortSignal,
  reason: () => Error,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const child = childOf(parent)
  const timer = setTimeout(() => child.abort(reason()), ms)
  try {
    return await untilAborted(work(child.signal), child.signal)
  } finally {
    clearTimeout(timer)
    child.release()
  }
}

/** Waits that long, or rejects with the signal's reason. */
export function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const aborted = () => {
      clearTimeout(timer)
      reject(signal.reason)
    }
    const timer = setTimeout(() => {
      signal.removeEventListener('abort', aborted)
      resolve()
    }, ms)
    if (signal.aborted) aborted()
    else signal.addEventListener('abort', aborted, { once: true })
  })
}

/** The same hypervisor for a task that can be aborted: a call that hangs frees its caller, a call after the end is refused. */
export function whileNotAborted(hypervisor: Hypervisor, signal: AbortSignal): Hypervisor {
  return new Proxy(hypervisor, {
    get: (target, name, receiver) => {
      const member = Reflect.get(target, name, receiver)
      if (typeof member !== 'function' || name === 'onChange') return member
      return (...args: unknown[]) => {
        signal.throwIfAborted()
        return untilAborted(Promise.resolve(Reflect.apply(member, target, args)), signal)
      }
    },
  })
}
