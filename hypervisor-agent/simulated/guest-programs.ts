/**
 * Programs and files of simulated guests: a few commands over a tree of files in memory, so that streams can be tried on a laptop. What a
 * real guest would do beside these is not pretended: an unknown command ends with 127, as a shell has it.
 */

import type { GuestFile, GuestProgram, GuestPrograms } from '../guest-programs.ts'
import { tarEnd, tarHeader, tarPadding, tarReader } from '../guest-streams/tar.ts'
import { HypervisorError } from '../hypervisor.ts'
import type { Guest } from './guests.ts'

export interface GuestProgramParts {
  call<T>(name: keyof GuestPrograms, uuid: string, effect: () => T): Promise<T>
  need(uuid: string): Guest
  save(): void
  now(): number
}

/** A file (`data` in base64), a folder, or a link. */
export interface SimulatedFile {
  mode: number
  modified_at: number
  data?: string
  link?: string
}

/** A program as it runs. */
interface Running {
  program: GuestProgram
  /** Of this boot of the guest. */
  boot: number
  stdout: Buffer[]
  stderr: Buffer[]
  code?: number
  input: Buffer[]
  isFed: boolean
  timer?: NodeJS.Timeout
}

const folderMode = 0o040755
const fileMode = 0o100644
const pieceBytes = 256 * 1024

export function simulatedGuestPrograms({ call, need, save, now }: GuestProgramParts): GuestPrograms {
  const programs = new Map<string, Running>()
  const keyOf = (uuid: string, id: string) => `${uuid.toLowerCase()}/${id}`
  const agentOf = (uuid: string): Guest => {
    const guest = need(uuid)
    if (guest.state !== 'running') throw new HypervisorError('VmNotRunning', `the VM ${uuid} is not running`)
    if (guest.guest_agent === true) return guest
    throw new HypervisorError('GuestAgentNotConnected', `no guest agent answers in VM ${uuid}`)
  }
  const followed = (uuid: string, id: string): Running => {
    const guest = agentOf(uuid)
    const found = programs.get(keyOf(uuid, id))
    if (found?.boot === guest.boots) return found
    throw new HypervisorError('TaskFailed', `nobody follows the program ${id} in VM ${uuid}`)
  }
  const filesOf = (guest: Guest): Record<string, SimulatedFile> => {
    guest.files ??= firstFiles(guest, now())
    return guest.files
  }
  const put = (guest: Guest, path: string, file: Omit<SimulatedFile, 'modified_at'> & { modified_at?: number }) => {
    filesOf(guest)[path] = { modified_at: now(), ...file }
    save()
  }
  const contentOf = (guest: Guest, path: string): Buffer => {
    const file = filesOf(guest)[resolved(filesOf(guest), path)]
    if (file?.data === undefined) throw new Error(`${path}: No such file or directory`)
    return Buffer.from(file.data, 'base64')
  }

  /** Goes on as far as its input allows. */
  function step(guest: Guest, running: Running): void {
    if (running.code !== undefined) return
    const [name = '', ...args] = running.program.command
    const known = COMMANDS[name]
    const say = (text: string | Buffer) => void running.stdout.push(Buffer.from(text))
    const end = (code: number) => {
      running.code = code
    }
    if (!known) {
      running.stderr.push(Buffer.from(`${name}: not found\n`))
      end(127)
      return
    }
    try {
      known({ guest, args, running, say, end, files: filesOf(guest), put, content: path => contentOf(guest, path) })
    } catch (error) {
      running.stderr.push(Buffer.from(`${name}: ${(error as Error).message}\n`))
      end(1)
    }
  }

  return {
    startProgram: (uuid, program) =>
      call('startProgram', uuid, () => {
        const guest = agentOf(uuid)
        const key = keyOf(uuid, program.id)
        if (programs.get(key)?.boot === guest.boots) return
        const running: Running = {
          ...{ program, boot: guest.boots, stdout: [], stderr: [], input: [] },
          isFed: !program.input,
        }
        programs.set(key, running)
        guest.programs_started = (guest.programs_started ?? 0) + 1
        step(guest, running)
      }),
    readProgram: (uuid, id) =>
      call('readProgram', uuid, () => {
        const running = followed(uuid, id)
        const { code } = running
        const [stdout, moreOut] = taken(running.stdout)
        const [stderr, moreErr] = taken(running.stderr)
        running.stdout = moreOut
        running.stderr = moreErr
        const isAll = moreOut.length + moreErr.length === 0
        return { stdout, stderr, ...(code !== undefined && isAll ? { code } : {}) }
      }),
    feedProgram: (uuid, id, input) =>
      call('feedProgram', uuid, () => {
        const running = followed(uuid, id)
        if (!running.program.input) throw new HypervisorError('TaskFailed', 'the program takes no input')
        if (input === 'end') running.isFed = true
        else running.input.push(Buffer.from(input))
        step(agentOf(uuid), running)
      }),
    endProgram: (uuid, id) =>
      call('endProgram', uuid, () => {
        agentOf(uuid)
        clearTimeout(programs.get(keyOf(uuid, id))?.timer)
        programs.delete(keyOf(uuid, id))
      }),
    forgetProgram: (uuid, id) =>
      call('forgetProgram', uuid, () => {
        agentOf(uuid)
        programs.delete(keyOf(uuid, id))
      }),
    statGuestFile: (uuid, path) =>
      call('statGuestFile', uuid, (): GuestFile => {
        const files = filesOf(agentOf(uuid))
        const plain = tidy(path)
        const found = files[plain] ?? files[resolved(files, plain)]
        if (!found) throw new HypervisorError('FileNotFound', `there is no ${path} in VM ${uuid}`)
        const leads = files[resolved(files, plain)]
        return {
          mode: found.mode,
          size: Buffer.from(found.data ?? '', 'base64').length,
          modified_at: found.modified_at,
          isDirectory: leads !== undefined && isFolder(leads),
          ...(found.link ? { link: found.link } : {}),
        }
      }),
    readGuestFile: (uuid, path, offset) =>
      call('readGuestFile', uuid, () => {
        const guest = agentOf(uuid)
        try {
          return contentOf(guest, tidy(path)).subarray(offset, offset + pieceBytes)
        } catch (cause) {
          throw new HypervisorError('FileNotFound', `there is no ${path} in VM ${uuid}`, { cause })
        }
      }),
  }
}

interface Work {
  guest: Guest
  args: string[]
  running: Running
  say(text: string | Buffer): void
  end(code: number): void
  files: Record<string, SimulatedFile>
  put(guest: Guest, path: string, file: Omit<SimulatedFile, 'modified_at'> & { modified_at?: number }): void
  content(path: string): Buffer
}

const COMMANDS: Record<string, (work: Work) => void> = {
  true: ({ end }) => end(0),
  false: ({ end }) => end(1),
  echo: ({ args, say, end }) => {
    say(`${args.join(' ')}\n`)
    end(0)
  },
  pwd: ({ running, say, end }) => {
    say(`${running.program.folder}\n`)
    end(0)
  },
  env: ({ running, say, end }) => {
    say(running.program.env.map(line => `${line}\n`).join(''))
    end(0)
  },
  id: ({ running, say, end }) => {
    say(`${running.program.user ?? 'root'}\n`)
    end(0)
  },
  /** Files, or its input as it comes. */
  cat: ({ args, running, say, end, content }) => {
    if (args.length > 0) {
      for (const path of args) say(content(path))
      return end(0)
    }
    for (const piece of running.input.splice(0)) say(piece)
    if (running.isFed) end(0)
  },
  sleep: ({ args, running, end }) => {
    running.timer ??= setTimeout(() => end(0), Number(args[0]) * 1000).unref()
  },
  /** `exit <n>` and nothing else, after what goes to the other output. */
  sh: ({ args, running, end }) => {
    running.stderr.push(Buffer.from('sh\n'))
    end(Number(/exit (\d+)/.exec(args[1] ?? '')?.[1] ?? 0))
  },
  /** `-C <folder> -cf - -- <name>` and `-C <folder> -xf -`, no others. */
  tar: work => {
    const [, folder = '/', way, , , name = ''] = work.args
    if (way === '-cf') return pack(work, folder, name)
    if (!work.running.isFed) return
    unpack(work, folder)
  },
}

function pack({ files, say, end, content }: Work, folder: string, name: string): void {
  const top = tidy(`${folder}/${name}`)
  const members = Object.keys(files).filter(path => path === top || path.startsWith(`${top}/`))
  if (members.length === 0) throw new Error(`${name}: Cannot stat: No such file or directory`)
  for (const path of members.sort()) {
    const { mode, modified_at, link } = files[path] as SimulatedFile
    const data = isFolder({ mode }) || link ? Buffer.alloc(0) : content(path)
    const type = link ? 'link' : isFolder({ mode }) ? 'folder' : 'file'
    const inside = `${name}${path.slice(top.length)}${type === 'folder' ? '/' : ''}`
    const mtime = modified_at / 1000
    say(tarHeader({ name: inside, type, mode, size: data.length, mtime, ...(link ? { link } : {}) }))
    say(data)
    say(tarPadding(data.length))
  }
  say(tarEnd)
  end(0)
}

function unpack({ guest, files, put, running, end }: Work, folder: string): void {
  const root = resolved(files, tidy(folder))
  let at = ''
  const reader = tarReader({
    entry: ({ name, type, mode, link }) => {
      at = tidy(`${root}/${name}`)
      if (type === 'folder') put(guest, at, { mode: 0o040000 | mode })
      else if (type === 'link') put(guest, at, { mode: 0o120777, link: link ?? '' })
      else put(guest, at, { mode: 0o100000 | mode, data: '' })
    },
    bytes: piece => {
      const file = files[at]
      if (file?.data === undefined) return
      file.data = Buffer.concat([Buffer.from(file.data, 'base64'), piece]).toString('base64')
    },
  })
  for (const piece of running.input.splice(0)) reader.push(piece)
  put(guest, '/tmp', files['/tmp'] ?? { mode: folderMode })
  end(0)
}

const isFolder = ({ mode }: { mode: number }) => (mode & 0o170000) === 0o040000
const tidy = (path: string) =>
  `/${path
    .split('/')
    .filter(part => part !== '' && part !== '.')
    .join('/')}`

/** Where a path leads; links of the last part only. */
function resolved(files: Record<string, SimulatedFile>, path: string): string {
  let at = tidy(path)
  for (let n = 0; n < 8 && files[at]?.link; n++) {
    const link = files[at]?.link ?? ''
    at = tidy(link.startsWith('/') ? link : `${at.slice(0, at.lastIndexOf('/'))}/${link}`)
  }
  return at
}

function firstFiles({ spec }: Guest, at: number): Record<string, SimulatedFile> {
  const folder = { mode: folderMode, modified_at: at }
  const hostname = { mode: fileMode, modified_at: at, data: Buffer.from(`${spec.name}\n`).toString('base64') }
  return { '/': folder, '/etc': folder, '/root': folder, '/tmp': folder, '/etc/hostname': hostname }
}

/** So much from the front, and the rest. */
function taken(pieces: Buffer[]): [Buffer, Buffer[]] {
  const all = Buffer.concat(pieces)
  const rest = all.subarray(pieceBytes)
  return [all.subarray(0, pieceBytes), rest.length > 0 ? [rest] : []]
}
