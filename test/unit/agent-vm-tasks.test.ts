/** Tasks that change VMs, take snapshots of them and move them, tried as `task-suite.ts` says. */
import { suite } from '../suite.ts'
import { CHANGE_CASES } from './change-cases.ts'
import { MIGRATE_CASES } from './migrate-cases.ts'
import { SNAPSHOT_CASES } from './snapshot-cases.ts'
import { tryCases } from './task-suite.ts'

const test = suite('agent tasks that change, keep and move VMs')

tryCases(test, [...CHANGE_CASES, ...SNAPSHOT_CASES, ...MIGRATE_CASES])

test.run()
