/** The task that makes images of VMs, tried as `task-suite.ts` says. */
import { suite } from '../suite.ts'
import { IMAGE_CASES } from './image-cases.ts'
import { tryCases } from './task-suite.ts'

const test = suite('agent tasks that make images')

tryCases(test, IMAGE_CASES)

test.run()
