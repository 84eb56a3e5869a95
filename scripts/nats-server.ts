/**
 * Finds a nats-server that is new enough, or fetches one without root.
 * Servers before 2.12 silently ignore per-key TTL, so a lease there would never end: they are named and passed over.
 */
import { execFile, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { access, chmod, constants, mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { promisify } from 'node:util'
import { natsServerSettings } from './config.ts'
import { OperatorProblem, printed } from './operator-problem.ts'

/** A usable server program and what it calls itself, such as `2.15.1`. */
export interface NatsServer {
  path: string
  version: string
}

/** Where to look, all optional: `natsServer` names one program, `fetch: 'never'` turns downloading off. */
export interface NatsServerSettings {
  natsServer?: string | undefined
  fetch: 'auto' | 'never'
  searchPath: string
  cacheDir: string
}

/** The oldest release with per-key TTL, atomic batches and strict API answers. */
export const minimumNatsVersion = '2.12.0'

/**
 * Returns the first nats-server that runs and is new enough: NATS_SERVER, PATH, the usual folders, the cache, else Debian's.
 * `say` hears what takes longer than a moment. Throws one OperatorProblem that names everything tried.
 */
export async function ensureNatsServer(
  settings: NatsServerSettings = natsServerSettings(),
  say: (line: string) => void = () => {},
): Promise<NatsServer> {
  const tried: string[] = []
  if (settings.natsServer) {
    const named = await examine(settings.natsServer)
    if (typeof named !== 'string') return named
    throw new OperatorProblem(
      `NATS_SERVER=${settings.natsServer} cannot be used: ${named}. Unset it or name another program.`,
    )
  }
  for (const path of await candidates(settings)) {
    const found = await examine(path)
    if (typeof found !== 'string') return found
    tried.push(`${path}: ${found}`)
    if (found.startsWith('version')) say(`passing over ${path}: ${found}`)
  }
  if (settings.fetch === 'never') tried.push('fetching is off (NATS_FETCH=never)')
  else {
    say(`no nats-server ${minimumNatsVersion} or newer here; fetching Debian's package into ${settings.cacheDir}`)
    for (const [way, fetchServer] of Object.entries(fetchers)) {
      try {
        return await fetchServer(settings.cacheDir)
      } catch (error) {
        tried.push(`${way}: ${reason(error)}`)
      }
    }
  }
  throw new OperatorProblem(
    `no nats-server ${minimumNatsVersion} or newer found. Tried: ${tried.join('; ') || 'PATH and the usual folders'}. ` +
      'Install one (Debian 13 and later: the nats-server package of suite forky; macOS: brew install nats-server) or set NATS_SERVER to its path, ' +
      'or use compose.yaml.',
  )
}

/** Ways to get a server into a cache folder, in the order they are tried; each throws when it cannot. */
export const fetchers: Readonly<Record<string, (cacheDir: string) => Promise<NatsServer>>> = {
  'Debian pool': fromPool,
  'apt-get download': fromApt,
}

/** Whether `version` (as a server tells it, perhaps with a suffix) is at least `minimum`. */
export function newEnough(version: string, minimum: string = minimumNatsVersion): boolean {
  const numbers = (text: string) => text.split(/[.-]/, 3).map(Number)
  const [have, want] = [numbers(version), numbers(minimum)]
  for (const [at, least] of want.entries()) {
    const part = have[at] ?? 0
    if (part !== least) return part > least
  }
  return true
}

const run = promisify(execFile)

/** The release every machine without a server gets: Debian's package, by content. */
const pinned = {
  file: (arch: string) => `pool/main/n/nats-server/nats-server_2.15.1-1_${arch}.deb`,
  sha256: {
    amd64: '31ef4ceaa84e8248d449e508472e3770c17c3695cb5cb0ee96e03912724ea884',
    arm64: '68923b614b6b5594bbd63ffdce7258c2155ec448fb4cb7efd099bf9273eca128',
  } as Readonly<Record<string, string>>,
}
const architectures: Readonly<Record<string, string>> = { x64: 'amd64', arm64: 'arm64' }
const keyring = '/usr/share/keyrings/debian-archive-keyring.gpg'

async function candidates({ searchPath, cacheDir }: NatsServerSettings): Promise<string[]> {
  const folders = [...searchPath.split(delimiter), '/usr/sbin', '/usr/local/bin', '/usr/local/sbin', cacheDir]
  const files = [...new Set(folders.filter(Boolean))].map(folder => join(folder, 'nats-server'))
  const usable = await Promise.all(
    files.map(file =>
      access(file, constants.X_OK).then(
        () => true,
        () => false,
      ),
    ),
  )
  return files.filter((_, at) => usable[at])
}

/** Asks a program for its version; a string says why it cannot be used. */
async function examine(path: string): Promise<NatsServer | string> {
  try {
    const { stdout } = await run(path, ['--version'], { timeout: 5_000 })
    const version = /v?(\d+\.\d+\.\d+\S*)/.exec(stdout)?.[1]
    if (!version) return 'it does not say its version'
    return newEnough(version) ? { path, version } : `version ${version} is older than ${minimumNatsVersion}`
  } catch (error) {
    return `it does not run (${reason(error)})`
  }
}

/** The pinned package by HTTP from the mirror that apt uses; checked by its hash, so the transport need not be trusted. */
async function fromPool(cacheDir: string): Promise<NatsServer> {
  const arch = architecture()
  const expected = pinned.sha256[arch] ?? ''
  const mirror = await aptMirror()
  const response = await fetch(new URL(pinned.file(arch), mirror), { signal: AbortSignal.timeout(60_000) })
  if (!response.ok) throw new Error(`${mirror} answered ${response.status}`)
  const deb = Buffer.from(await response.arrayBuffer())
  if (createHash('sha256').update(deb).digest('hex') !== expected) throw new Error(`${mirror} sent another package`)
  return install(deb, cacheDir)
}

/** Whatever version Debian's suite holds now, in an apt root of our own: signatures checked, no root needed. */
async function fromApt(cacheDir: string): Promise<NatsServer> {
  return install(await aptDownload({ suite: 'forky' }), cacheDir)
}

/** Downloads the nats-server package of a Debian suite through a private apt root; returns the .deb's bytes. */
export async function aptDownload({ suite }: { suite: string }): Promise<Buffer> {
  const mirror = await aptMirror()
  const root = await mkdtemp(join(tmpdir(), 'muster-apt-'))
  try {
    const folders = ['state/lists/partial', 'cache/archives/partial', 'sources', 'preferences', 'download']
    await Promise.all(folders.map(folder => mkdir(join(root, folder), { recursive: true })))
    const signed = await access(keyring).then(
      () => [`Signed-By: ${keyring}`],
      () => [],
    )
    // A frozen mirror's Release may be past its date; what it says is still signed.
    const source = [
      'Types: deb',
      `URIs: ${mirror}`,
      `Suites: ${suite}`,
      'Components: main',
      'Check-Valid-Until: no',
      ...signed,
    ]
    await writeFile(join(root, 'sources/debian.sources'), `${source.join('\n')}\n`)
    const options = [
      'Dir::Etc::sourcelist=/dev/null',
      `Dir::Etc::sourceparts=${root}/sources`,
      'Dir::Etc::preferences=/dev/null',
      `Dir::Etc::preferencesparts=${root}/preferences`,
      `Dir::State=${root}/state`,
      'Dir::State::status=/dev/null',
      `Dir::Cache=${root}/cache`,
      'APT::Sandbox::User=',
      'Acquire::Languages=none',
    ].flatMap(option => ['-o', option])
    const cwd = join(root, 'download')
    await run('apt-get', [...options, 'update'], { cwd, timeout: 120_000 })
    await run('apt-get', [...options, 'download', 'nats-server'], { cwd, timeout: 120_000 })
    const [file] = await readdir(cwd)
    if (!file) throw new Error(`suite ${suite} has no nats-server`)
    return await readFile(join(cwd, file))
  } finally {
    await rm(root, { recursive: true, force: true })
  }
}

/** The Debian mirror of apt's own sources files; security and third-party archives do not carry the package. */
async function aptMirror(): Promise<string> {
  const format = ['indextargets', '--format', '$(REPO_URI) $(RELEASE) $(COMPONENT)', 'Created-By: Packages']
  const { stdout } = await run('apt-get', format, { timeout: 20_000 })
  for (const line of stdout.split('\n')) {
    const [uri = '', release = '', component = ''] = line.split(' ')
    if (component !== 'main' || release.endsWith('-security') || !/\/debian\/?$/.test(uri.replace(/\.list$/, '')))
      continue
    const plain = uri.startsWith('mirror+file:') ? await firstOfMirrorList(uri) : uri
    if (/^https?:/.test(plain)) return plain.endsWith('/') ? plain : `${plain}/`
  }
  throw new Error("apt's sources name no Debian mirror")
}

async function firstOfMirrorList(uri: string): Promise<string> {
  const text = await readFile(uri.replace(/^mirror\+file:/, '').replace(/\/$/, ''), 'utf8')
  return /^\s*(https?:\S+)/m.exec(text)?.[1] ?? ''
}

/** Puts the program of a package into the cache, once it has been seen to run and to be new enough. */
async function install(deb: Buffer, cacheDir: string): Promise<NatsServer> {
  const folder = await unpack(deb, cacheDir)
  try {
    const found = await examine(join(folder, 'usr/sbin/nats-server'))
    if (typeof found === 'string') throw new Error(`the fetched package is of no use: ${found}`)
    const path = join(cacheDir, 'nats-server')
    await rename(found.path, path)
    return { ...found, path }
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

/** Unpacks a .deb (an `ar` archive holding data.tar.*) into a fresh folder below `parent`; needs only tar and xz. */
export async function unpack(deb: Buffer, parent: string): Promise<string> {
  const data = [...members(deb)].find(member => member.name.startsWith('data.tar'))
  if (!data) throw new Error('not a Debian package')
  await mkdir(parent, { recursive: true })
  const folder = await mkdtemp(join(parent, 'unpack-'))
  const packed = { '.xz': ['-J'], '.gz': ['-z'], '.zst': ['--zstd'] }[data.name.replace(/^data\.tar/, '')] ?? []
  const tar = spawn('tar', ['-x', ...packed, '-C', folder, './usr/sbin/nats-server'], {
    stdio: ['pipe', 'ignore', 'pipe'],
  })
  let complaint = ''
  tar.stderr.on('data', chunk => {
    complaint += chunk
  })
  tar.stdin.on('error', () => {})
  tar.stdin.end(data.bytes)
  const code = await new Promise<number | null>((resolve, reject) => tar.on('error', reject).on('close', resolve))
  if (code !== 0) {
    await rm(folder, { recursive: true, force: true })
    throw new Error(`tar could not unpack it: ${complaint.trim()}`)
  }
  const program = join(folder, 'usr/sbin/nats-server')
  await chmod(program, 0o755)
  return folder
}

/** `ar`: an 8 byte mark, then members of a 60 byte header (name at 0, decimal size at 48) and an even number of bytes. */
function* members(archive: Buffer): Generator<{ name: string; bytes: Buffer }> {
  for (let at = 8; at + 60 <= archive.length; ) {
    const size = Number(archive.toString('latin1', at + 48, at + 58))
    const name = archive
      .toString('latin1', at, at + 16)
      .trim()
      .replace(/\/$/, '')
    yield { name, bytes: archive.subarray(at + 60, at + 60 + size) }
    at += 60 + size + (size % 2)
  }
}

function architecture(): string {
  const arch = process.platform === 'linux' ? architectures[process.arch] : undefined
  if (!arch) throw new Error(`no pinned package for ${process.platform} ${process.arch}`)
  return arch
}

function reason(error: unknown): string {
  const told = error as { stderr?: string; message?: string; cause?: { message?: string } }
  const text = told.stderr?.trim().split('\n').at(-1) || told.cause?.message || told.message || String(error)
  return text.slice(0, 200)
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  try {
    console.log((await ensureNatsServer(natsServerSettings(), line => console.error(line))).path)
  } catch (error) {
    console.error(printed(error))
    process.exitCode = 1
  }
}
