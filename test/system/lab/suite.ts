/**
 * A suite that runs inside a lab, with Muster on it where wanted: started before its tests, stopped after them. Where no lab
 * can run every claim is skipped with the reason, unless the environment says SYSTEM_TESTS=required: then tests run and fail.
 */
import { join } from 'node:path'
import { type Suite, suite } from '../../suite.ts'
import { type Lab, startLab, whyNoLab } from './lab.ts'
import { logs, type Muster, startMuster } from './muster.ts'

export interface SystemSuite {
  test: Suite
  /** Only inside tests and hooks; as muster(). */
  lab(): Lab
  muster(): Muster
}

/** `env`: settings of Muster beside the lab's. */
export async function systemSuite(
  name: string,
  { muster: wanted = false, env: more = {} }: { muster?: boolean; env?: NodeJS.ProcessEnv } = {},
): Promise<SystemSuite> {
  const test = suite(name)
  const reason = process.env['SYSTEM_TESTS'] === 'required' ? undefined : await whyNoLab()
  let lab: Lab | undefined
  let muster: Muster | undefined
  if (reason) return { test: skipping(test, reason), lab: () => fail('skipped'), muster: () => fail('skipped') }
  test.before(async () => {
    lab = await startLab()
    if (!wanted) return
    const env = {
      HYPERVISOR: 'libvirt',
      DOMAIN_TYPE: 'qemu',
      STORAGE_POOL: lab.pool,
      CONSOLE_DIR: join(lab.folder, 'consoles'),
      ...more,
    }
    muster = await startMuster({ dataDir: join(lab.folder, 'data'), env })
  })
  test.after(async () => {
    try {
      await muster?.stop()
    } finally {
      await lab?.stop()
    }
  })
  return {
    test: telling(test, () => muster),
    lab: () => lab ?? fail('no lab was started'),
    muster: () => muster ?? fail('Muster was not started'),
  }
}

// Minutes of guests and five processes: a failure must bring along what the processes said.
function telling(test: Suite, muster: () => Muster | undefined): Suite {
  const told: Suite = Object.assign(
    (...[claim, body, limit]: Parameters<Suite>) =>
      test(
        claim,
        async () => {
          try {
            await body()
          } catch (error) {
            const running = muster()
            if (running) console.log(`"${claim}" failed: ${error}\n${await logs(running.dataDir)}`)
            throw error
          }
        },
        limit ?? { limitMs: 300_000 },
      ),
    { before: test.before, after: test.after, skip: test.skip, run: test.run },
  )
  return told
}

/** The same suite with every claim skipped for a reason. */
export function skipping(test: Suite, reason: string): Suite {
  const skip = (claim: string) => test.skip(claim, reason)
  return Object.assign(skip, { before: () => {}, after: () => {}, skip: test.skip, run: test.run })
}

function fail(why: string): never {
  throw new Error(why)
}
