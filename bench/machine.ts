/** What else the machine did while a measure ran: figures from a busy machine are not figures of Muster. */
import { readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { msPerTick } from './scope.ts'

/** Starts watching; the returned function says how many cores all other processes used since. Ask when the run's own have ended. */
export function watchOthers(): () => string {
  const [beganAt, busy, own] = [performance.now(), busyMs(), ownMs()]
  return () => {
    const others = busyMs() - busy - (ownMs() - own)
    const cores = Math.max(0, others / (performance.now() - beganAt))
    return `others used ${cores.toFixed(1)} of ${availableParallelism()} cores`
  }
}

/** Time that all processors spent on anything, ms. */
function busyMs(): number {
  const [, user, nice, system, , , irq, softirq, steal] = (readFileSync('/proc/stat', 'utf8').split('\n')[0] ?? '')
    .split(/\s+/)
    .map(Number)
  return [user, nice, system, irq, softirq, steal].reduce<number>((sum, ticks) => sum + (ticks ?? 0), 0) * msPerTick
}

/** Time that this process and its ended children used, ms. */
function ownMs(): number {
  const fields = readFileSync('/proc/self/stat', 'utf8').split(') ')[1]?.split(' ').map(Number) ?? []
  return fields.slice(11, 15).reduce((sum, ticks) => sum + ticks, 0) * msPerTick
}
