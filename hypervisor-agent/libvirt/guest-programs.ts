/**
 * See `GuestPrograms`: by QEMU's guest agent, which tells a program's output only at its end and takes its input only at its start. So a
 * program writes into files of a folder in the guest's /tmp, which are read as they grow, and a loop in the guest passes on what is added
 * to a file of input. What callers send is always an argument, never a part of a script.
 */
import type { Domain } from 'node-libvirt'
import * as v from 'valibot'
import type { GuestFile, GuestProgram, GuestPrograms, ProgramOutput } from '../guest-programs.ts'
import { HypervisorError } from '../hypervisor.ts'
import { askAgent } from './guest-agent.ts'
import { DETACH, FOLLOW, FORGET, KILL, PREPARE, START, STAT } from './guest-words.ts'

export interface GuestProgramParts {
  /** One piece of work on the VM's domain; calls for it take turns. */
  act<T>(doing: string, uuid: string, action: (domain: Domain) => Promise<T>): Promise<T>
}

/** A program that is followed: its number in the guest, and handles of its files there. */
interface Followed {
  pid: number
  handles: { stdout: number; stderr: number; input?: number }
  leasedAt: number
  /** Known from its end on: the agent tells that once. */
  code?: number | undefined
}

/** Bytes asked for in one answer, and sent in one command: the agent reads commands by the letter, which takes a slow guest its time. */
const pieceBytes = 128 * 1024
const sentBytes = 32 * 1024
/** The guest waits 60 s and more for a sign of who follows a program. */
const leaseEveryMs = 20_000
/** Time of a script of ours in the guest, ms. */
const scriptMs = 10_000
const lookEveryMs = 25
const notThere = 44

export function libvirtGuestPrograms({ act }: GuestProgramParts): GuestPrograms {
  const followed = new Map<string, Followed>()
  const keyOf = (uuid: string, id: string) => `${uuid.toLowerCase()}/${id}`
  const need = (uuid: string, id: string): Followed => {
    const found = followed.get(keyOf(uuid, id))
    if (!found) throw new HypervisorError('TaskFailed', `nobody follows the program ${id} in VM ${uuid}`)
    return found
  }

  async function start(domain: Domain, program: GuestProgram): Promise<void> {
    const { id, command, env, folder, user = '', input, detached } = program
    if (followed.has(keyOf(domain.uuid, id))) return
    const place = placeOf(id)
    await script(domain, PREPARE, [place])
    const mode = detached ? 'detached' : input ? 'input' : 'plain'
    const words = [FOLLOW, 'sh', place, mode, folder, user, ...command]
    const variables = [`PATH=${path}`, 'HOME=/root', ...env]
    if (detached) {
      // It has begun when this is over: then what is kept of it may go.
      await script(domain, DETACH, words, { env: variables })
      return
    }
    const pid = await begin(domain, { arg: ['-c', START, 'sh', ...words], env: variables })
    const stdout = await open(domain, `${place}/out`, 'r')
    const stderr = await open(domain, `${place}/err`, 'r')
    const handles = { stdout, stderr, ...(input ? { input: await open(domain, `${place}/in`, 'a') } : {}) }
    followed.set(keyOf(domain.uuid, id), { pid, handles, leasedAt: performance.now() })
  }

  async function read(domain: Domain, id: string): Promise<ProgramOutput> {
    const one = need(domain.uuid, id)
    if (performance.now() - one.leasedAt > leaseEveryMs) {
      await touch(domain, `${placeOf(id)}/lease`)
      one.leasedAt = performance.now()
    }
    // First whether it has ended, then what it wrote: so nothing comes after the end.
    one.code ??= codeOf(v.parse(Status, await askAgent(domain, 'guest-exec-status', { pid: one.pid })))
    const stdout = await piece(domain, one.handles.stdout)
    const stderr = await piece(domain, one.handles.stderr)
    const isAll = stdout.length < pieceBytes && stderr.length < pieceBytes
    return { stdout, stderr, ...(one.code !== undefined && isAll ? { code: one.code } : {}) }
  }

  return {
    startProgram: (uuid, program) => act('start a program in', uuid, domain => start(domain, program)),
    readProgram: (uuid, id) => act('read from a program in', uuid, domain => read(domain, id)),
    feedProgram: (uuid, id, given) =>
      act('write to a program in', uuid, async domain => {
        const { input: handle } = need(uuid, id).handles
        if (handle === undefined) throw new HypervisorError('TaskFailed', 'the program takes no input')
        if (given === 'end') return touch(domain, `${placeOf(id)}/closed`)
        for (let at = 0; at < given.length; at += sentBytes) {
          const data = Buffer.from(given.subarray(at, at + sentBytes)).toString('base64')
          await askAgent(domain, 'guest-file-write', { handle, 'buf-b64': data })
        }
        await askAgent(domain, 'guest-file-flush', { handle })
      }),
    endProgram: (uuid, id) =>
      act('end a program in', uuid, async domain => {
        const handles = Object.values(followed.get(keyOf(uuid, id))?.handles ?? {})
        followed.delete(keyOf(uuid, id))
        for (const handle of handles) await askAgent(domain, 'guest-file-close', { handle }).catch(() => {})
        await script(domain, KILL, [placeOf(id)])
      }),
    forgetProgram: (uuid, id) =>
      act('forget a program in', uuid, async domain => void (await script(domain, FORGET, [placeOf(id)]))),
    statGuestFile: (uuid, file) =>
      act('look at a file in', uuid, async domain => {
        const { code, said } = await script(domain, STAT, [file], { known: notThere })
        if (code === notThere) throw new HypervisorError('FileNotFound', `there is no ${file} in VM ${uuid}`)
        return readStat(said)
      }),
    readGuestFile: (uuid, file, offset) =>
      act('read a file in', uuid, async domain => {
        const handle = await open(domain, file, 'r')
        try {
          await askAgent(domain, 'guest-file-seek', { handle, offset, whence: 0 })
          return await piece(domain, handle)
        } finally {
          await askAgent(domain, 'guest-file-close', { handle })
        }
      }),
  }
}

const placeOf = (id: string) => `/tmp/.muster-${id}`
const path = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

const Started = v.object({ pid: v.number() })
const Status = v.object({
  exited: v.boolean(),
  exitcode: v.optional(v.number()),
  signal: v.optional(v.number()),
  'out-data': v.optional(v.string(), ''),
  'err-data': v.optional(v.string(), ''),
})
const Read = v.object({ 'buf-b64': v.optional(v.string(), '') })

/** A shell's word for an end. */
function codeOf({ exited, exitcode, signal = 9 }: v.InferOutput<typeof Status>): number | undefined {
  return exited ? (exitcode ?? 128 + signal) : undefined
}

async function begin(domain: Domain, given: { arg: string[]; env?: string[]; 'capture-output'?: boolean }) {
  return v.parse(Started, await askAgent(domain, 'guest-exec', { path: '/bin/sh', ...given })).pid
}

/** Runs one of our scripts to its end, which must be 0 or `known`. */
async function script(domain: Domain, words: string, args: string[], how: { known?: number; env?: string[] } = {}) {
  const { known = 0, env } = how
  const given = { arg: ['-c', words, 'sh', ...args], 'capture-output': true, ...(env ? { env } : {}) }
  const pid = await begin(domain, given)
  const deadline = performance.now() + scriptMs
  for (;;) {
    const status = v.parse(Status, await askAgent(domain, 'guest-exec-status', { pid }))
    const code = codeOf(status)
    const said = text(status['out-data'])
    if (code === 0 || code === known) return { code, said }
    if (code !== undefined) {
      const wrong = text(status['err-data']).trim() || `code ${code}`
      throw new HypervisorError('HypervisorError', `the shell of VM ${domain.uuid} refused: ${wrong}`)
    }
    if (performance.now() > deadline) {
      throw new HypervisorError(
        'TaskTimedOut',
        `the shell of VM ${domain.uuid} did not end within ${scriptMs / 1000} s`,
      )
    }
    await new Promise(resolve => setTimeout(resolve, lookEveryMs))
  }
}

async function open(domain: Domain, file: string, mode: 'r' | 'w' | 'a'): Promise<number> {
  try {
    return v.parse(v.number(), await askAgent(domain, 'guest-file-open', { path: file, mode }))
  } catch (error) {
    if (!/no such file|not a directory/i.test((error as Error).message)) throw error
    throw new HypervisorError('FileNotFound', `there is no ${file} in VM ${domain.uuid}`, { cause: error })
  }
}

async function piece(domain: Domain, handle: number): Promise<Buffer> {
  const answer = v.parse(Read, await askAgent(domain, 'guest-file-read', { handle, count: pieceBytes }))
  return Buffer.from(answer['buf-b64'], 'base64')
}

/** Makes a file there, or makes it new. */
async function touch(domain: Domain, file: string): Promise<void> {
  await askAgent(domain, 'guest-file-close', { handle: await open(domain, file, 'w') })
}

/** What STAT says. */
function readStat(said: string): GuestFile {
  const [line = '', ...rest] = said.split('\n')
  const [mode = '0', size = '0', seconds = '0', leads = ''] = line.split(' ')
  const link = rest.join('\n').replace(/\n$/, '')
  return {
    mode: Number.parseInt(mode, 16),
    size: Number(size),
    modified_at: Number(seconds) * 1000,
    isDirectory: leads === 'folder',
    ...(link ? { link } : {}),
  }
}

const text = (base64: string): string => Buffer.from(base64, 'base64').toString()
