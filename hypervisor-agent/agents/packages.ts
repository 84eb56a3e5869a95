/**
 * Installing and removing one agent: a Debian package by dpkg, or a tarball as `<prefix>/<name>/<version>` with the link `current`. What
 * was there before comes back where the new one cannot be installed.
 */
import { execFile } from 'node:child_process'
import {
  chmod,
  copyFile,
  lstat,
  mkdir,
  open,
  readdir,
  readFile,
  readlink,
  rename,
  rm,
  stat,
  symlink,
  writeFile,
} from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { HypervisorError } from '../hypervisor.ts'
import type { InstalledAgent } from './order.ts'

/** Runs a program and answers its output; fails with what it said last. */
export type Run = (program: string, args: readonly string[]) => Promise<string>

export interface Packages {
  /** Looks at a file: what it would install. */
  examine(file: string, wanted: { name?: string; digest: string }): Promise<InstalledAgent>
  /** Keeps what is installed under that name as a way back. Once kept it stays, whatever is installed since. */
  keep(agent: InstalledAgent, way: string): Promise<void>
  install(agent: InstalledAgent, file: string): Promise<void>
  /** Back to what was kept; what was absent is removed. */
  restore(agent: InstalledAgent, way: string): Promise<void>
  /** What is not installed is removed already. */
  remove(agent: Pick<InstalledAgent, 'name' | 'kind'>): Promise<void>
}

const programLimitMs = 15 * 60_000

const execute = promisify(execFile)
export const runProgram: Run = async (program, args) => {
  const env = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', DEBIAN_FRONTEND: 'noninteractive', LC_ALL: 'C.UTF-8' }
  try {
    return (await execute(program, [...args], { timeout: programLimitMs, maxBuffer: 16 * 1024 * 1024, env })).stdout
  } catch (cause) {
    const { stderr, message } = cause as { stderr?: string; message: string }
    const said = (stderr || message).trim().split('\n').slice(-5).join('; ')
    throw new HypervisorError('AgentInstallFailed', `${program}: ${said}`, { cause })
  }
}

/** `prefix`: where tarballs go. */
export function packages({
  run,
  prefix,
  info = '/var/lib/dpkg/info',
}: {
  run: Run
  prefix: string
  info?: string
}): Packages {
  const home = (name: string) => join(prefix, name)
  const current = (name: string) => join(home(name), 'current')

  async function isInstalled(name: string): Promise<boolean> {
    // biome-ignore lint/suspicious/noTemplateCurlyInString: dpkg's own form of a field
    const status = await run('dpkg-query', ['-W', '-f=${db:Status-Status}', '--', name]).catch(() => '')
    return !['', 'not-installed', 'config-files'].includes(status.trim())
  }

  /** The package that is installed, put together again from its files. Configuration that was changed is taken as it is. */
  async function repack(name: string, into: string): Promise<void> {
    const root = `${into}.tree`
    await rm(root, { recursive: true, force: true })
    await mkdir(join(root, 'DEBIAN'), { recursive: true, mode: 0o755 })
    const paths = (await run('dpkg-query', ['-L', '--', name])).split('\n')
    // A folder of the package may be a link on the node, as /lib is.
    const folders = new Set(paths.map(path => dirname(path)))
    for (const path of paths) {
      const look = folders.has(path) ? stat : lstat
      const found = path.startsWith('/') ? await look(path).catch(() => undefined) : undefined
      if (!found) continue
      const to = join(root, path)
      if (found.isDirectory()) await mkdir(to, { recursive: true, mode: found.mode & 0o7777 })
      else if (found.isSymbolicLink()) await symlink(await readlink(path), to)
      else {
        await copyFile(path, to)
        await chmod(to, found.mode & 0o7777)
      }
    }
    for (const script of ['preinst', 'postinst', 'prerm', 'postrm', 'conffiles', 'triggers']) {
      const content = await readFile(join(info, `${name}.${script}`)).catch(() => undefined)
      if (content)
        await writeFile(join(root, 'DEBIAN', script), content, { mode: /inst|rm$/.test(script) ? 0o755 : 0o644 })
    }
    await writeFile(join(root, 'DEBIAN/control'), controlOf(await run('dpkg-query', ['-s', '--', name])))
    await run('dpkg-deb', ['--root-owner-group', '-Zgzip', '--build', root, `${into}.new`])
    await rename(`${into}.new`, into)
    await rm(root, { recursive: true, force: true })
  }

  async function pointTo(name: string, version: string): Promise<void> {
    const link = `${current(name)}.new`
    await rm(link, { force: true })
    await symlink(version, link)
    await rename(link, current(name))
  }

  const kinds = {
    deb: {
      keep: async (name: string, way: string) => {
        if (await isInstalled(name)) await repack(name, `${way}.deb`)
      },
      install: (_agent: InstalledAgent, file: string) => run('dpkg', ['--install', '--force-confold', '--', file]),
      restore: async (name: string, way: string) => {
        const before = await lstat(`${way}.deb`).catch(() => undefined)
        if (before) await run('dpkg', ['--install', '--force-confold', '--', `${way}.deb`])
        else if (await isInstalled(name)) await run('dpkg', ['--remove', '--force-remove-reinstreq', '--', name])
      },
      remove: async (name: string) => {
        if (await isInstalled(name)) await run('dpkg', ['--remove', '--', name])
      },
    },
    tarball: {
      keep: async (name: string, way: string) => {
        await writeFile(`${way}.link`, await readlink(current(name)).catch(() => ''))
      },
      install: async ({ name, version }: InstalledAgent, file: string) => {
        const to = join(home(name), version)
        await rm(`${to}.new`, { recursive: true, force: true })
        await mkdir(`${to}.new`, { recursive: true, mode: 0o755 })
        const options = ['--no-same-owner', '--no-same-permissions', '--directory', `${to}.new`]
        await run('tar', ['--extract', '--file', file, ...options])
        await rm(to, { recursive: true, force: true })
        await rename(`${to}.new`, to)
        const before = await readlink(current(name)).catch(() => '')
        await pointTo(name, version)
        for (const other of await readdir(home(name))) {
          if (![version, before, 'current'].includes(other))
            await rm(join(home(name), other), { recursive: true, force: true })
        }
      },
      restore: async (name: string, way: string) => {
        const before = await readFile(`${way}.link`, 'utf8').catch(() => '')
        if (before) await pointTo(name, basename(before))
        else await rm(home(name), { recursive: true, force: true })
      },
      remove: async (name: string) => {
        await rm(home(name), { recursive: true, force: true })
      },
    },
  }

  return {
    examine: async (file, { name, digest }) => {
      const head = await firstBytes(file)
      if (!head.startsWith('!<arch>\n')) {
        if (!name)
          throw new HypervisorError('InvalidArgument', 'a tarball is installed under a name: give package_name')
        await run('tar', ['--list', '--file', file])
        return { name, version: digest.slice(0, 12), kind: 'tarball' }
      }
      const [is = '', version = ''] = await Promise.all(
        ['Package', 'Version'].map(async field => (await run('dpkg-deb', ['--field', file, field])).trim()),
      )
      if (name && name !== is) throw new HypervisorError('InvalidArgument', `the package is ${is}, not ${name}`)
      return { name: is, version, kind: 'deb' }
    },
    keep: async ({ name, kind }, way) => {
      const done = `${way}.kept`
      if (await lstat(done).catch(() => undefined)) return
      await mkdir(dirname(way), { recursive: true, mode: 0o700 })
      await kinds[kind].keep(name, way)
      await writeFile(done, '')
    },
    install: async (agent, file) => void (await kinds[agent.kind].install(agent, file)),
    restore: async ({ name, kind }, way) => kinds[kind].restore(name, way),
    remove: async ({ name, kind }) => kinds[kind].remove(name),
  }
}

/** The control file of an installed package, from what dpkg says of it. */
function controlOf(status: string): string {
  const fields = status.split(/\n(?=\S)/)
  const kept = fields.filter(field => !/^(Status|Conffiles|Config-Version):/.test(field))
  return `${kept.join('\n').trimEnd()}\n`
}

async function firstBytes(path: string): Promise<string> {
  const file = await open(path, 'r')
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(8), 0, 8, 0)
    return buffer.subarray(0, bytesRead).toString('latin1')
  } finally {
    await file.close()
  }
}
