/** The tasks behind CNAPI's docker endpoints: each works, twice equals once, and it survives a crash at each of its calls. */
import { suite } from '../suite.ts'
import { DOCKER_CASES } from './docker-cases.ts'
import { tryCases } from './task-suite.ts'

const test = suite('tasks of the docker endpoints')
tryCases(test, DOCKER_CASES)
test.run()
