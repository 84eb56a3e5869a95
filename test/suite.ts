/**
 * uvu behind a guard: every test has a time limit, and what uvu swallows (a hook that throws, a non-Error thrown)
 * is printed and counted as a failure. Use `const test = suite('the thing')`, then `test(...)`, then `test.run()`.
 */
import { suite as uvuSuite } from 'uvu'

type Body = () => unknown | Promise<unknown>

export interface Suite {
  (claim: string, body: Body, limit?: { limitMs: number }): void
  before(hook: Body): void
  after(hook: Body): void
  skip(claim: string, reason: string): void
  run(): void
}

const defaultLimitMs = 30_000

export function suite(name: string): Suite {
  const inner = uvuSuite(name)
  let broken: unknown
  const test = ((claim, body, limit) => {
    inner(claim, async () => {
      if (broken) throw new Error(`set-up of this suite failed: ${String(broken)}`)
      await within(claim, body, limit?.limitMs ?? defaultLimitMs)
    })
  }) as Suite
  test.before = hook =>
    inner.before(async () => {
      try {
        await within('before', hook, 120_000)
      } catch (error) {
        broken = error
        console.error(error)
      }
    })
  test.after = hook =>
    inner.after(async () => {
      try {
        await within('after', hook, 60_000)
      } catch (error) {
        console.error(error)
        process.exitCode = 1
        console.log('SUITE BROKEN: the after hook failed')
      }
    })
  test.skip = (claim, reason) => {
    console.log(`SKIP ${name}: ${claim} (${reason})`)
    inner.skip(claim, () => {})
  }
  test.run = () => inner.run()
  return test
}

async function within(claim: string, body: Body, limitMs: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined
  const limit = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`"${claim}" did not end within ${limitMs} ms`)), limitMs)
  })
  try {
    await Promise.race([Promise.resolve().then(body), limit])
  } catch (error) {
    if (error instanceof Error) throw error
    throw new Error(`"${claim}" threw ${JSON.stringify(error)}`)
  } finally {
    clearTimeout(timer)
  }
}
