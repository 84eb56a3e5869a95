/**
 * Files between a caller and a guest, as a tar archive. A plain file is read as it is; a folder is packed, and an archive unpacked, by the
 * guest's own tar.
 */
import { posix } from 'node:path'
import type { CopyMode, PathStat } from '../../actors/contract/tasks/docker.ts'
import { within } from '../abort.ts'
import type { GuestFile } from '../guest-programs.ts'
import { type Hypervisor, HypervisorError } from '../hypervisor.ts'
import { follow, guestCallMs } from './exec.ts'
import type { StreamWork } from './guest-streams.ts'
import { pieceMaxBytes } from './lines.ts'
import { tarEnd, tarHeader, tarPadding, tarReader } from './tar.ts'

/** Most bytes of an archive that is put into a guest, whose /tmp has to hold them. */
const uploadMaxBytes = 1024 ** 3

export interface CopyWish {
  uuid: string
  path: string
  mode: CopyMode
  file: GuestFile
  noOverwriteDir: boolean
}

/** What a path is. FileNotFound; PathNotDirectory where the path says it is one, or something is to be put into it. */
export async function examine(hypervisor: Hypervisor, uuid: string, path: string, mode: CopyMode): Promise<GuestFile> {
  // A link with a slash behind it is what it leads to, to the guest's shell too.
  const file = await hypervisor.statGuestFile(uuid, path)
  const mustBeFolder = mode === 'write' || /\/\.?$/.test(path)
  if (mustBeFolder && !file.isDirectory) {
    throw new HypervisorError('PathNotDirectory', `${path} in VM ${uuid} is not a directory`)
  }
  return file
}

/** As Docker describes a path, the mode as Go numbers it. */
export function pathStat(path: string, { mode, size, modified_at, link = '' }: GuestFile): PathStat {
  const name = posix.basename(posix.normalize(path)) || '/'
  return { name, size, mode: goMode(mode), mtime: new Date(modified_at).toISOString(), linkTarget: link }
}

const typeMask = 0o170000
const folderType = 0o040000
const fileType = 0o100000
/** Linux's type, and Go's bits for it. */
const goTypes = new Map([
  [folderType, 2 ** 31],
  [0o120000, 2 ** 27],
  [0o060000, 2 ** 26],
  [0o010000, 2 ** 25],
  [0o140000, 2 ** 24],
  [0o020000, 2 ** 26 + 2 ** 21],
])
const goFlags: [number, number][] = [
  [0o4000, 2 ** 23],
  [0o2000, 2 ** 22],
  [0o1000, 2 ** 20],
]

function goMode(mode: number): number {
  const flags = goFlags.filter(([bit]) => (mode & bit) !== 0).reduce((sum, [, bit]) => sum + bit, 0)
  return (mode & 0o777) + (goTypes.get(mode & typeMask) ?? 0) + flags
}

/** Serves a copy; what `examine` found is `file`. */
export async function copy(work: StreamWork, wish: CopyWish): Promise<object> {
  if (wish.mode === 'stat') return {}
  if (wish.mode === 'write') return put(work, wish)
  return (wish.file.mode & typeMask) === fileType ? readFile(work, wish) : readTree(work, wish)
}

async function readFile({ hypervisor, lines, signal }: StreamWork, { uuid, path, file }: CopyWish): Promise<object> {
  const send = (data: Buffer) => lines.send({ type: 'data', data: data.toString('base64') })
  const { mode, size, modified_at } = file
  await send(tarHeader({ name: posix.basename(path), type: 'file', mode, size, mtime: modified_at / 1000 }))
  let at = 0
  while (at < size) {
    const read = await within(guestCallMs, signal, stuck, () => hypervisor.readGuestFile(uuid, path, at))
    // It has become shorter meanwhile: the header stands already, so what is missing is zeros, as tar itself has it.
    const piece = read.length > 0 ? read.subarray(0, size - at) : Buffer.alloc(Math.min(size - at, pieceMaxBytes))
    await send(piece)
    at += piece.length
  }
  await send(Buffer.concat([tarPadding(size), tarEnd]))
  return {}
}

async function readTree({ hypervisor, lines, signal }: StreamWork, { uuid, path }: CopyWish): Promise<object> {
  const plain = posix.normalize(path).replace(/\/$/, '') || '/'
  const wrong: string[] = []
  const name = posix.basename(plain) || '.'
  const code = await follow({ hypervisor, signal }, uuid, {
    program: program(['tar', '-C', posix.dirname(plain), '-cf', '-', '--', name]),
    wrote: async (stream, data) => {
      if (stream === 'stderr') wrong.push(data.toString())
      else await lines.send({ type: 'data', data: data.toString('base64') })
    },
    attend: lines.left,
  })
  return ending(code, wrong)
}

async function put({ hypervisor, lines, signal }: StreamWork, wish: CopyWish): Promise<object> {
  const { uuid, path, noOverwriteDir } = wish
  const wrong: string[] = []
  const coming = lines.upload(uploadMaxBytes)
  const input = noOverwriteDir
    ? kept(coming, name => within(guestCallMs, signal, stuck, () => find(hypervisor, wish, name)))
    : coming
  const code = await follow({ hypervisor, signal }, uuid, {
    program: { ...program(['tar', '-C', path, '-xf', '-']), input: true },
    wrote: async (_, data) => void wrong.push(data.toString()),
    attend: async give => {
      for await (const piece of input) await give(piece)
      await give('end')
      await lines.left()
    },
  })
  return ending(code, wrong)
}

const program = (command: string[]) => ({ command, env: [], folder: '/', input: false })

/** Passes an archive on, unless an entry of it would put a file where a folder is, or a folder where a file is. */
async function* kept(
  source: AsyncIterable<Buffer>,
  find: (name: string) => Promise<GuestFile | undefined>,
): AsyncGenerator<Buffer> {
  const names: { name: string; isFolder: boolean }[] = []
  const reader = tarReader({ entry: ({ name, type }) => void names.push({ name, isFolder: type === 'folder' }) })
  for await (const piece of source) {
    try {
      reader.push(piece)
    } catch (cause) {
      throw new HypervisorError('InvalidContent', (cause as Error).message, { cause })
    }
    for (const { name, isFolder } of names.splice(0)) {
      const found = await find(name)
      if (found && found.isDirectory !== isFolder) {
        throw new HypervisorError('PathNotDirectory', `${name} would replace ${isFolder ? 'a file' : 'a directory'}`)
      }
    }
    yield piece
  }
}

async function find(hypervisor: Hypervisor, { uuid, path }: CopyWish, name: string): Promise<GuestFile | undefined> {
  try {
    return await hypervisor.statGuestFile(uuid, posix.join(path, posix.join('/', name)))
  } catch (error) {
    if (error instanceof HypervisorError && error.code === 'FileNotFound') return undefined
    throw error
  }
}

function ending(code: number, wrong: string[]): object {
  if (code === 0) return { code }
  const said = wrong.join('').slice(-1024).trim()
  throw new HypervisorError('TaskFailed', `tar in the VM ended with code ${code}${said && `: ${said}`}`)
}

const stuck = () => new HypervisorError('GuestAgentNotConnected', 'the guest agent does not answer in time')
