/**
 * Carries out the orders that agents of this node left: fetch, look, keep what is there, install, and go back where that fails. Each step
 * can be repeated, so an order that was broken off is carried out by the next run.
 */
import { constants } from 'node:fs'
import { open, readdir, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import * as v from 'valibot'
import { DIGESTS } from '../../actors/contract/image.ts'
import { makeFolder, readIfThere, removeDurable, writeDurable } from '../durable-file.ts'
import { HypervisorError } from '../hypervisor.ts'
import { download, type Wanted } from '../images/download.ts'
import { manifestOf, sourceOf } from '../images/image-service.ts'
import { FetchError, type Fetcher } from '../install/fetch.ts'
import { InstalledAgent, installedFile, Order, ownNames, type Progress, progressFolder } from './order.ts'
import type { Packages } from './packages.ts'

export interface InstallerOptions {
  /** Where orders are left. */
  ordersDir: string
  /** The installer's own folder. */
  dir: string
  /** Asks allowed hosts only. */
  web: Fetcher
  /** The image service, without a slash at the end. */
  service?: string
  packages: Packages
  /** Largest file, bytes. */
  maxBytes?: number
  retryMs?: number
  log: (line: string) => void
}

const defaultMaxBytes = 2 * 1024 ** 3
const orderMaxBytes = 64 * 1024
/** Ended orders are remembered so long, ms: their agent may be away. */
const rememberedMs = 30 * 24 * 3600 * 1000

type Install = Extract<Order, { kind: 'install' }>

/** Carries out all orders there are, oldest first. An order that fails is ended with its error; only a fault of the folders throws. */
export async function carryOutOrders(options: InstallerOptions): Promise<void> {
  // The agent can put a link in the place of its folder, at any moment: what is removed here must not be of another.
  const folder = await open(options.ordersDir, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW)
  try {
    await carryOut({ ...options, ordersDir: `/proc/self/fd/${folder.fd}` })
  } finally {
    await folder.close()
  }
}

async function carryOut(options: InstallerOptions): Promise<void> {
  const { ordersDir, dir, web, packages, log } = options
  const progressDir = join(dir, progressFolder)
  // Others read what is in it; nobody else writes.
  await makeFolder(dir, 0o755)
  await makeFolder(progressDir, 0o755)
  const progressOf = (id: string) => join(progressDir, `${id}.json`)
  const tell = async (id: string, progress: Omit<Progress, 'at'>) => {
    await writeDurable(progressOf(id), `${JSON.stringify({ ...progress, at: Date.now() }, null, 2)}\n`, 0o644)
  }

  await forgetOld()
  for (let order = await nextOrder(); order; order = await nextOrder()) {
    const { id } = order
    log(`order ${id}: ${order.kind}`)
    let error: Progress['error']
    if (!(await hasEnded(id))) {
      try {
        await (order.kind === 'install' ? install(order) : uninstall(order.id, order.agents))
      } catch (fault) {
        error = failureOf(fault)
        log(`order ${id} failed: ${error.message}`)
      }
      await tell(id, { state: 'ended', percent: 100, step: 'done', ...(error ? { error } : {}) })
    }
    await removeDurable(join(ordersDir, `${id}.json`))
    await rm(join(dir, 'work', id), { recursive: true, force: true })
  }

  async function nextOrder(): Promise<Order | undefined> {
    for (const name of (await readdir(ordersDir)).sort()) {
      if (!name.endsWith('.json')) continue
      const path = join(ordersDir, name)
      const order = await readOrder(path)
      if (order && name === `${order.id}.json`) return order
      log(`${name} is no order and is removed`)
      await removeDurable(path)
    }
    return undefined
  }

  async function install({ id, image_uuid, package_name, ...about }: Install): Promise<void> {
    const work = join(dir, 'work', id)
    const wanted = await wantedOf({ ...about, ...(image_uuid ? { image_uuid } : {}) })
    await tell(id, { state: 'working', percent: 5, step: 'fetch_agent' })
    const file = await download(web, wanted, {
      folder: work,
      signal: new AbortController().signal,
      ...(options.retryMs === undefined ? {} : { retryMs: options.retryMs }),
    })
    const digest = DIGESTS.map(name => wanted.digests[name]).find(Boolean) ?? ''
    const named = package_name ? { name: package_name } : {}
    const agent = v.parse(InstalledAgent, { ...(await packages.examine(file, { ...named, digest })), image_uuid })
    // Its owner may have ended it while it was fetched.
    if (!(await isThere(join(ordersDir, `${id}.json`))))
      throw new HypervisorError('TaskCancelled', 'the order was withdrawn')
    await tell(id, { state: 'working', percent: 60, step: 'keep_previous' })
    const way = join(work, 'previous')
    await packages.keep(agent, way)
    await tell(id, { state: 'working', percent: 75, step: 'install_agent' })
    try {
      await packages.install(agent, file)
    } catch (error) {
      await tell(id, { state: 'working', percent: 85, step: 'restore_previous' })
      const { message } = failureOf(error)
      const back = await packages.restore(agent, way).then(
        () => 'what was there before is back',
        fault => `what was there before could not be restored: ${failureOf(fault).message}`,
      )
      throw new HypervisorError('AgentInstallFailed', `${agent.name} ${agent.version}: ${message}; ${back}`)
    }
    await setInstalled([...(await installed()).filter(({ name }) => name !== agent.name), agent])
  }

  async function wantedOf({ image_uuid, url, sha256, sha1, md5, size }: Partial<Install>): Promise<Wanted> {
    const maxBytes = options.maxBytes ?? defaultMaxBytes
    const digests = Object.fromEntries(Object.entries({ sha256, sha1, md5 }).filter(([, value]) => value !== undefined))
    const { service } = options
    const signal = new AbortController().signal
    if (url === undefined && (image_uuid === undefined || service === undefined)) {
      throw new HypervisorError(
        'ImageSourceUnknown',
        'neither a url nor an image service (IMGAPI_URL) says where the agent is',
      )
    }
    const served =
      url === undefined && image_uuid !== undefined && service !== undefined
        ? sourceOf(service, image_uuid, await manifestOf(web, service, image_uuid, signal))
        : undefined
    const wanted = { ...served?.digests, ...digests }
    if (!DIGESTS.some(name => wanted[name]))
      throw new HypervisorError('ImageSourceInvalid', 'nothing says the checksum of the agent')
    const sizeBytes = size ?? served?.size
    return { url: url ?? served?.url ?? '', digests: wanted, maxBytes, ...(sizeBytes ? { sizeBytes } : {}) }
  }

  async function uninstall(id: string, names: string[]): Promise<void> {
    await tell(id, { state: 'working', percent: 10, step: 'remove_agents' })
    for (const agent of await installed()) {
      if (!names.includes(agent.name) || ownNames.includes(agent.name)) continue
      await packages.remove(agent)
      await setInstalled((await installed()).filter(({ name }) => name !== agent.name))
    }
  }

  async function installed(): Promise<InstalledAgent[]> {
    const text = await readIfThere(join(dir, installedFile))
    return text === undefined ? [] : v.parse(v.array(InstalledAgent), JSON.parse(text))
  }
  async function setInstalled(agents: InstalledAgent[]): Promise<void> {
    const sorted = [...agents].sort((a, b) => a.name.localeCompare(b.name))
    await writeDurable(join(dir, installedFile), `${JSON.stringify(sorted, null, 2)}\n`, 0o644)
  }

  async function hasEnded(id: string): Promise<boolean> {
    const text = await readIfThere(progressOf(id))
    return text !== undefined && (JSON.parse(text) as Progress).state === 'ended'
  }

  async function forgetOld(): Promise<void> {
    for (const name of await readdir(progressDir)) {
      const path = join(progressDir, name)
      if (Date.now() - (await stat(path)).mtimeMs > rememberedMs) await removeDurable(path)
    }
  }
}

/** Orders come from a process of lesser rights: a link is not followed, and a large file not read. */
async function readOrder(path: string): Promise<Order | undefined> {
  try {
    const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
    try {
      const { size } = await file.stat()
      if (size > orderMaxBytes) return undefined
      const order = v.safeParse(Order, JSON.parse(await file.readFile('utf8')))
      return order.success ? order.output : undefined
    } finally {
      await file.close()
    }
  } catch {
    return undefined
  }
}

function failureOf(error: unknown): { code: string; message: string } {
  if (error instanceof FetchError) return { code: 'ImageSourceInvalid', message: error.message }
  if (error instanceof HypervisorError) return { code: error.code, message: error.message }
  return { code: 'AgentInstallFailed', message: error instanceof Error ? error.message : String(error) }
}

const isThere = (file: string) =>
  stat(file).then(
    () => true,
    () => false,
  )
