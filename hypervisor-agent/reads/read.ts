/** What a live read is given: no commit, no journal, answered at once or refused. */

import type { InferOutput } from 'valibot'
import type { READS, ReadName } from '../../actors/contract/task.ts'
import type { Hypervisor } from '../hypervisor.ts'
import type { Tools } from '../tools.ts'

export interface ReadContext extends Tools {
  serverUuid: string
  hypervisor: Hypervisor
}

export type ReadHandlers = {
  [N in ReadName]: (context: ReadContext, params: InferOutput<(typeof READS)[N]['params']>) => Promise<unknown>
}
