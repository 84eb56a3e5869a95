/** A program in a guest that a caller follows: its output as it comes, the caller's input, its code. It is killed when the caller leaves. */
import { randomUUID } from 'node:crypto'
import type { ExecCommand } from '../../actors/contract/tasks/docker.ts'
import { childOf, pause, within } from '../abort.ts'
import type { GuestProgram, ProgramOutput } from '../guest-programs.ts'
import { type Hypervisor, HypervisorError } from '../hypervisor.ts'
import type { StreamWork } from './guest-streams.ts'

/** Time of one call to the guest, ms: one that hangs is given up, whatever libvirt makes of it. */
export const guestCallMs = 30_000
/** How often a program is looked at, ms: soon after it wrote, rarely while it is silent. */
const lookMs = { least: 50, most: 1_000 }
/** Bytes of input in one call. */
const fedBytes = 64 * 1024

export interface Follower {
  program: Omit<GuestProgram, 'id' | 'detached'>
  /** What it writes; awaited, so that nothing is read that cannot be sent. */
  wrote(name: 'stdout' | 'stderr', data: Buffer): Promise<void>
  /** Gives its input and goes on until the caller leaves; that it throws ends the program. */
  attend(give: (input: Uint8Array | 'end') => Promise<void>): Promise<void>
}

/** Serves `docker exec`: what is attached goes to the caller, the rest is read and thrown away. */
export async function exec(work: StreamWork, uuid: string, command: ExecCommand): Promise<object> {
  const { AttachStdin = false, AttachStdout = true, AttachStderr = true } = command
  const attached = { stdout: AttachStdout, stderr: AttachStderr }
  const code = await follow(work, uuid, {
    program: programOf(command),
    wrote: async (name, data) => {
      if (attached[name]) await work.lines.send({ type: name, data: data.toString('base64') })
    },
    attend: async give => {
      let isOpen = AttachStdin
      for await (const { type, data } of work.lines.received()) {
        if (!isOpen) continue
        if (type === 'stdin' && data) await give(data)
        if (type === 'end') await give('end')
        isOpen = type !== 'end'
      }
    },
  })
  return { code }
}

/** Docker's words for a program as ours. */
export function programOf({ Cmd, Env = [], WorkingDir, User, AttachStdin = false }: ExecCommand): Follower['program'] {
  const user = User ? { user: User } : {}
  return { command: Cmd, env: Env, folder: WorkingDir || '/', input: AttachStdin, ...user }
}

/** Resolves with the program's code. Whatever happens, nothing of it is left in the guest that answers. */
export async function follow(
  { hypervisor, signal: parent }: Pick<StreamWork, 'hypervisor' | 'signal'>,
  uuid: string,
  { program, wrote, attend }: Follower,
): Promise<number> {
  const id = randomUUID()
  const ending = childOf(parent)
  const { signal } = ending
  const call = <T>(work: () => Promise<T>) => within(guestCallMs, signal, stuck, work)
  try {
    await call(() => hypervisor.startProgram(uuid, { ...program, id, detached: false }))
    attend(async input => {
      if (input === 'end') return call(() => hypervisor.feedProgram(uuid, id, 'end'))
      for (let at = 0; at < input.length; at += fedBytes) {
        await call(() => hypervisor.feedProgram(uuid, id, input.subarray(at, at + fedBytes)))
      }
    }).catch(error => ending.abort(error))
    for (let wait = lookMs.least; ; ) {
      const output = await call(() => hypervisor.readProgram(uuid, id))
      await told(output, wrote)
      if (output.code !== undefined) return output.code
      wait = output.stdout.length + output.stderr.length > 0 ? lookMs.least : Math.min(wait * 1.5, lookMs.most)
      await pause(wait, signal)
    }
  } finally {
    ending.abort(new HypervisorError('TaskCancelled', 'the program has ended'))
    ending.release()
    await cleared(hypervisor, uuid, id)
  }
}

async function told({ stdout, stderr }: ProgramOutput, wrote: Follower['wrote']): Promise<void> {
  if (stdout.length > 0) await wrote('stdout', stdout)
  if (stderr.length > 0) await wrote('stderr', stderr)
}

/** A guest that cannot be asked kills it by itself, when nobody renews its lease. */
async function cleared(hypervisor: Hypervisor, uuid: string, id: string): Promise<void> {
  const signal = new AbortController().signal
  await within(guestCallMs, signal, stuck, () => hypervisor.endProgram(uuid, id)).catch(() => {})
}

const stuck = () => new HypervisorError('GuestAgentNotConnected', 'the guest agent does not answer in time')
