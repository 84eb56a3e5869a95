/** Tasks that change VMs and take snapshots of them, tried as `task-suite.ts` says. */
import { suite } from '../suite.ts'
import { CHANGE_CASES } from './change-cases.ts'
import { SNAPSHOT_CASES } from './snapshot-cases.ts'
import { tryCases } from './task-suite.ts'

const test = suite('agent tasks that change and keep VMs')

tryCases(test, [...CHANGE_CASES, ...SNAPSHOT_CASES])

test.run()
