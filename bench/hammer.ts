/** Keeps a number of operations in flight for a time, and says how many ended and how long they took. */

export interface Load {
  inFlight: number
  forMs: number
  /** Not counted; caches fill and code is compiled meanwhile. */
  warmUpMs?: number
  /** One operation; `lane` is 0 to inFlight - 1 and does one at a time. Throws for anything that is not a success. */
  operation: (lane: number) => Promise<unknown>
}

export interface Rate {
  perSecond: number
  count: number
  p50Ms: number
  p99Ms: number
  maxMs: number
}

/** Rejects with the first operation that failed. */
export async function hammer({ inFlight, forMs, warmUpMs = 1_500, operation }: Load): Promise<Rate> {
  const begin = performance.now() + warmUpMs
  const end = begin + forMs
  const took: number[] = []
  await Promise.all(
    Array.from({ length: inFlight }, async (_, lane) => {
      for (let at = performance.now(); at < end; ) {
        await operation(lane)
        const now = performance.now()
        if (at >= begin && now <= end) took.push(now - at)
        at = now
      }
    }),
  )
  took.sort((a, b) => a - b)
  const quantile = (q: number) => took[Math.min(took.length - 1, Math.floor(took.length * q))] ?? 0
  return {
    perSecond: took.length / (forMs / 1000),
    count: took.length,
    p50Ms: quantile(0.5),
    p99Ms: quantile(0.99),
    maxMs: took.at(-1) ?? 0,
  }
}

/** "p50 1.2 ms, p99 3.4 ms" */
export const latency = ({ p50Ms, p99Ms }: Rate): string => `p50 ${p50Ms.toFixed(1)} ms, p99 ${p99Ms.toFixed(1)} ms`
