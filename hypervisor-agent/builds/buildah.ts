/**
 * Builds with buildah, in a storage of Muster's own in the state folder: the isolation is chroot, which needs no runtime and no network of
 * its own. What a Dockerfile runs, runs as the agent's user on this node, so the configuration must allow it.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { mkdir, readFile, realpath, rm } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join, sep } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { promisify } from 'node:util'
import type { BuildPayload } from '../../actors/contract/tasks/docker.ts'
import { untilAborted } from '../abort.ts'
import { HypervisorError } from '../hypervisor.ts'
import type { Builds, BuildWork } from './builds.ts'

export interface BuildahOptions {
  stateDir: string
  isAllowed: boolean
  /** The program; another one in tests. */
  program?: string
}

const run = promisify(execFile)
const graceMs = 2_000
/** Builds at once. */
const buildsMax = 2

export function buildahBuilds({ stateDir, isAllowed, program = 'buildah' }: BuildahOptions): Builds {
  const folder = join(stateDir, 'builds')
  const contexts = join(folder, 'contexts')
  const storage = [`--root=${join(folder, 'storage')}`, `--runroot=${join(folder, 'run')}`, '--storage-driver=vfs']

  const check: Builds['check'] = async () => {
    if (!isAllowed) {
      throw new HypervisorError('BuildNotAllowed', 'this agent does not build images: DOCKER_BUILD=on allows it')
    }
    await run(program, ['--version'], { timeout: 10_000 }).catch(cause => {
      const message = `this server has no buildah that works: install the package buildah (${cause.message})`
      throw new HypervisorError('BuildahNotInstalled', message, { cause })
    })
  }

  let running = 0
  /** The first build removes what builds of an agent that died have left of their contexts. */
  let tidied: Promise<void> | undefined
  return {
    check,
    build: async (wish, work) => {
      await check()
      if (running >= buildsMax)
        throw new HypervisorError('TooManyStreams', `${running} builds run on this server already`)
      running += 1
      const place = join(contexts, randomUUID())
      const context = join(place, 'context')
      try {
        tidied ??= rm(contexts, { recursive: true, force: true })
        await tidied
        await mkdir(context, { recursive: true, mode: 0o700 })
        await unpack(work, context)
        const idFile = join(place, 'id')
        const code = await follow(
          program,
          [...storage, ...buildWords(wish, await dockerfileIn(context, wish), idFile), context],
          work,
        )
        return code === 0 ? { code, image: (await readFile(idFile, 'utf8')).trim() } : { code }
      } finally {
        running -= 1
        await rm(place, { recursive: true, force: true })
      }
    },
  }
}

/** Each option is one argument with its value, so that no value can be an option. */
function buildWords(wish: BuildPayload, dockerfile: string, idFile: string): string[] {
  const { t, target, buildargs = {}, labels = {}, nocache } = wish
  return [
    'build',
    '--isolation=chroot',
    `--file=${dockerfile}`,
    `--iidfile=${idFile}`,
    ...(t ? [`--tag=${t}`] : []),
    ...(target ? [`--target=${target}`] : []),
    ...Object.entries(buildargs).map(([name, value]) => `--build-arg=${name}=${value}`),
    ...Object.entries(labels).map(([name, value]) => `--label=${name}=${value}`),
    ...(nocache ? ['--no-cache'] : []),
  ]
}

/** The Dockerfile, if it really lies in the context: a link could lead to any file of the node. */
async function dockerfileIn(context: string, { dockerfile }: BuildPayload): Promise<string> {
  const found = await realpath(join(context, dockerfile)).catch(() => undefined)
  if (found?.startsWith(`${await realpath(context)}${sep}`)) return found
  throw new HypervisorError('FileNotFound', `the context has no file ${dockerfile}`)
}

async function unpack({ context, signal }: BuildWork, folder: string): Promise<void> {
  const words = ['-x', '-f', '-', '-C', folder, '--no-same-owner', '--no-same-permissions']
  const tar = spawn('tar', words, { stdio: ['pipe', 'ignore', 'pipe'] })
  const said: Buffer[] = []
  tar.stderr.on('data', (piece: Buffer) => void (said.length < 16 && said.push(piece)))
  const ended = endOf(tar)
  try {
    // A tar that ends early breaks the pipe: what it says is the reason, not that.
    const fed = pipeline(context, tar.stdin, { signal }).catch(error => {
      if (error.code !== 'EPIPE') throw error
    })
    const [code] = await untilAborted(Promise.all([ended, fed]), signal)
    if (code === 0) return
    const words = Buffer.concat(said).toString().slice(0, 1024).trim()
    throw new HypervisorError('InvalidContent', `the context is no tar archive that can be unpacked: ${words}`)
  } finally {
    tar.kill('SIGKILL')
    await ended.catch(() => {})
  }
}

/** Runs it in a process group of its own, so that a build is killed with what it has started. */
async function follow(program: string, words: string[], { wrote, signal }: BuildWork): Promise<number> {
  const env = { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', HOME: homedir() }
  const child = spawn(program, words, { stdio: ['ignore', 'pipe', 'pipe'], detached: true, cwd: '/', env })
  const kill = (name: NodeJS.Signals) => {
    try {
      if (child.pid !== undefined) process.kill(-child.pid, name)
    } catch {
      // It has ended.
    }
  }
  const ended = endOf(child)
  const tell = async (name: 'stdout' | 'stderr') => {
    for await (const piece of child[name]) await wrote(name, piece as Buffer)
  }
  try {
    const [code] = await untilAborted(Promise.all([ended, tell('stdout'), tell('stderr')]), signal)
    return code
  } finally {
    // Buildah removes its working container when it is asked to end.
    kill('SIGTERM')
    const timer = setTimeout(() => kill('SIGKILL'), graceMs)
    await ended.catch(() => {})
    clearTimeout(timer)
    kill('SIGKILL')
  }
}

function endOf(child: ChildProcess): Promise<number> {
  return new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('exit', (code, signal) => resolve(code ?? (signal ? 137 : 1)))
  })
}
