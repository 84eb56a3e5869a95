/**
 * ZFS by its commands `zfs` and `zpool`: the only interface that OpenZFS, its older releases and zfs-fuse share. Names are checked at the door,
 * so none can be an option; nothing passes a shell.
 */
import { execFile } from 'node:child_process'
import { HypervisorError } from '../hypervisor.ts'
import type { Zfs, ZfsRow, ZpoolRow } from './zfs.ts'

/** `env`: where the commands are found. `limitMs`: a pool that has lost its disks answers no command. */
export function zfsCommands({ env, limitMs = 50_000 }: { env?: NodeJS.ProcessEnv; limitMs?: number } = {}): Zfs {
  const run = (command: 'zfs' | 'zpool', args: readonly string[], what: string) =>
    new Promise<string>((resolve, reject) => {
      const options = {
        timeout: limitMs,
        killSignal: 'SIGKILL' as const,
        maxBuffer: outputMaxBytes,
        ...(env ? { env } : {}),
      }
      execFile(command, args, options, (error, stdout, stderr) => {
        if (error) reject(failureOf(error, stderr, `cannot ${what}`))
        else resolve(stdout)
      })
    })

  const properties: Zfs['properties'] = async (dataset, names) => {
    const wanted = names.length > 0 ? names.join(',') : 'all'
    const columns = ['-H', '-p', '-o', 'name,property,value']
    const args = ['get', ...columns, wanted, ...(dataset === undefined ? [] : [dataset])]
    return byName(await run('zfs', args, `get properties${dataset === undefined ? '' : ` of ${dataset}`}`))
  }

  return {
    datasets: async () => rows(await properties(undefined, listed)).filter(row => row.type !== 'snapshot'),
    snapshots: async dataset => {
      const args = ['get', '-r', '-H', '-p', '-o', 'name,property,value', listed.join(','), dataset]
      const found = byName(await run('zfs', args, `list snapshots of ${dataset}`))
      return rows(found).filter(row => row.type === 'snapshot')
    },
    properties,
    ownProperties: async (dataset, names) => {
      const args = ['get', '-H', '-p', '-s', 'local', '-o', 'name,property,value', names.join(','), dataset]
      return byName(await run('zfs', args, `get properties of ${dataset}`))[dataset] ?? {}
    },
    pools: async () => {
      const text = await run('zpool', ['list', '-H', '-o', 'name,size,allocated,free,capacity,health'], 'list pools')
      return lines(text).map(
        ([name = '', size = '', allocated = '', free = '', cap = '', health = '']): ZpoolRow => ({
          name,
          size,
          allocated,
          free,
          cap,
          health,
        }),
      )
    },
    create: async dataset => void (await run('zfs', ['create', dataset], `create dataset ${dataset}`)),
    snapshot: async name => void (await run('zfs', ['snapshot', name], `create snapshot ${name}`)),
    rollback: async name => void (await run('zfs', ['rollback', name], `roll back to ${name}`)),
    set: async (dataset, given) => {
      // One property a command: older releases take no more.
      for (const [name, value] of Object.entries(given)) {
        await run('zfs', ['set', `${name}=${value}`, dataset], `set ${name} of ${dataset}`)
      }
    },
    unset: async (dataset, name) => void (await run('zfs', ['inherit', name, dataset], `unset ${name} of ${dataset}`)),
    destroy: async name => void (await run('zfs', ['destroy', name], `destroy ${name}`)),
  }
}

/** Far beyond what an answer may have. */
const outputMaxBytes = 16 * 1024 * 1024
/** `zfs list` of older releases prints no exact numbers, `zfs get` of all releases does. */
const listed = ['used', 'available', 'referenced', 'type', 'mountpoint']

const lines = (text: string): string[][] =>
  text
    .split('\n')
    .filter(Boolean)
    .map(line => line.split('\t'))

function byName(text: string): Record<string, Record<string, string>> {
  const found: Record<string, Record<string, string>> = {}
  for (const [name = '', property = '', value = ''] of lines(text)) {
    found[name] ??= {}
    found[name][property] = value
  }
  return found
}

function rows(found: Record<string, Record<string, string>>): ZfsRow[] {
  return Object.entries(found).map(([name, of]) => ({
    name,
    used: of['used'] ?? '-',
    avail: of['available'] ?? '-',
    refer: of['referenced'] ?? '-',
    type: of['type'] ?? '-',
    mountpoint: of['mountpoint'] ?? '-',
  }))
}

/** What ZFS says, by what it says: its exit code is 1 for everything. */
const MEANINGS = [
  [/initialize ZFS library|zfs-fuse daemon|ZFS modules|\/dev\/zfs|no pools available to/i, 'ZfsNotAvailable'],
  [/does not exist|no such pool/i, 'DatasetNotFound'],
  [/already exists/i, 'DatasetExists'],
  [/is busy/i, 'DatasetBusy'],
] as const

function failureOf(error: Error & { code?: unknown; killed?: boolean }, stderr: string, what: string): HypervisorError {
  if (error.code === 'ENOENT')
    return new HypervisorError(
      'ZfsNotAvailable',
      'this server has no ZFS: the commands zfs and zpool are not installed',
    )
  if (error.killed) return new HypervisorError('ZfsFailed', `${what}: ZFS did not answer in time`)
  const said = stderr.trim() || error.message
  const code = MEANINGS.find(([form]) => form.test(said))?.[1] ?? 'ZfsFailed'
  if (code === 'ZfsNotAvailable') return new HypervisorError(code, `this server's ZFS does not work: ${said}`)
  return new HypervisorError(code, `${what}: ${said}`)
}
