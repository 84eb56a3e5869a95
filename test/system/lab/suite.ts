/**
 * A suite that runs inside a lab: started before its tests, stopped after them. Where no lab can run every claim is skipped
 * with the reason, unless the environment says SYSTEM_TESTS=required: then the tests run and fail.
 */
import { type Suite, suite } from '../../suite.ts'
import { type Lab, startLab, whyNoLab } from './lab.ts'

export interface SystemSuite {
  test: Suite
  /** Only inside tests and hooks. */
  lab(): Lab
}

export async function systemSuite(name: string): Promise<SystemSuite> {
  const test = suite(name)
  const reason = process.env['SYSTEM_TESTS'] === 'required' ? undefined : await whyNoLab()
  let lab: Lab | undefined
  if (reason) return { test: skipping(test, reason), lab: () => fail('skipped') }
  test.before(async () => {
    lab = await startLab()
  })
  test.after(() => lab?.stop())
  return { test, lab: () => lab ?? fail('no lab was started') }
}

function skipping(test: Suite, reason: string): Suite {
  const skip = (claim: string) => test.skip(claim, reason)
  return Object.assign(skip, { before: () => {}, after: () => {}, skip: test.skip, run: test.run })
}

function fail(why: string): never {
  throw new Error(why)
}
