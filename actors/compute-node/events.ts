/** What the machine of a compute node hears. */
import type { TaskReport } from '../contract/messages.ts'
import type { VerbParams } from '../contract/verbs.ts'
import type { Refused, Stamp } from '../effects.ts'
import type { ClaimEvent } from './claims.ts'
import type { DeleteEvent } from './delete.ts'
import type { JobEvent } from './job-run.ts'
import type { RecordEvent } from './update.ts'

type Of<V extends 'register' | 'task_add' | 'task_release' | 'task_fail' | 'task_note' | 'task_done' | 'task_drop'> =
  Stamp & { type: V } & VerbParams<'cn', V>
type Report = Stamp & { type: 'report'; reported_at: number } & Omit<TaskReport, 'at'>
export type ServerEvent =
  | Of<'register'>
  | Of<'task_add'>
  | Of<'task_release'>
  | Of<'task_fail'>
  | Of<'task_note'>
  | Of<'task_done'>
  | Of<'task_drop'>
  | (Stamp & { type: 'heard' | 'silent' | 'forgot_all' })
  | (Stamp & { type: 'accept_limit' | 'run_limit'; task_id: string })
  | Report
  | ClaimEvent
  | (Stamp & { type: 'pause' | 'resume' })
  | JobEvent
  | RecordEvent
  | DeleteEvent
  | Refused
