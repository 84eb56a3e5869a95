/**
 * The images of a node: fetched, checked, copied into the pool, remembered with where they came from. Whoever wants the same image
 * meanwhile waits for the one who fetches it.
 */
import { readdir, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import * as v from 'valibot'
import {
  type Compression,
  DIGESTS,
  type Digests,
  digests,
  type Image,
  type ImageFormat,
} from '../../actors/contract/image.ts'
import { untilAborted } from '../abort.ts'
import { makeFolder, readIfThere, removeDurable, writeDurable } from '../durable-file.ts'
import { type Hypervisor, HypervisorError } from '../hypervisor.ts'
import { type Fetcher, shownUrl } from '../install/fetch.ts'
import { download } from './download.ts'
import { manifestOf, sourceOf } from './image-service.ts'
import { examine, unpack } from './unpack.ts'
import type { ImageVolume } from './volumes.ts'

/** Where the file of an image is, and how it is known. */
export interface ImageSource {
  url: string
  digests: Digests
  /** Bytes. */
  size?: number
  compression: Compression
  format?: ImageFormat
}

/** An image as a caller names it. Without a `url` the image service is asked, and what else is given must fit its file. */
export type ImageRequest = { name: string } & { [name in keyof ImageSource]?: ImageSource[name] | undefined }

/** What the one who waits is given and tells: part of a task's context. */
export interface Doing {
  hypervisor: Hypervisor
  signal: AbortSignal
  progress(percent: number, step: string): void
  /** Of the progress that fetching and installing may take up, percent; default 0 to 100. */
  share?: { from: number; to: number }
}

export interface Images {
  /** Fetches the image into the pool unless it is there. Twice equals once, also after a crash in between. */
  ensure(request: ImageRequest, doing: Doing): Promise<void>
  /** Whether an image that is not named with its source can be fetched. */
  hasService(): boolean
  /** Does something while these images stay: `remove` refuses them. */
  using<T>(names: readonly string[], action: () => Promise<T>): Promise<T>
  list(hypervisor: Hypervisor): Promise<Image[]>
  /** Remembers an image of the pool that was made here: `source` says of what. */
  made(name: string, origin: Digests & { source: string; manifest: Record<string, unknown> }): Promise<void>
  /** ImageServiceFailed for an image service that this server must not ask. */
  admit(service: string): void
  /**
   * Keeps the name for the image that a task makes, until that is removed or its task gives it up: nobody else fetches or makes one under it.
   * ImageExists.
   */
  reserve(name: string, taskId: string, doing: Pick<Doing, 'hypervisor' | 'signal'>): Promise<void>
  /** The image was made, or is not: what was kept for it goes. Not what another task keeps. */
  giveUp(name: string, taskId: string): Promise<void>
  /** The image that a task was making is not wanted: it goes, and its name is free. Nothing of what another one keeps. ImageInUse. */
  discard(name: string, taskId: string, doing: Pick<Doing, 'hypervisor' | 'signal'>): Promise<void>
  /** A file for what the task that keeps the name makes on its way; it goes with the reservation. */
  partOf(name: string, taskId: string): Promise<string>
  /** ImageInUse, naming VMs. An absent image is success. */
  remove(name: string, doing: Pick<Doing, 'hypervisor' | 'signal'>): Promise<void>
}

export interface ImagesOptions {
  stateDir: string
  web: Fetcher
  /** Without a slash at the end. */
  service?: string
  /** Most bytes of a file, as it is fetched and unpacked. */
  maxBytes: number
  retryMs?: number
}

const Origin = v.object({
  name: v.string(),
  /** As it is shown, also of an image whose address was kept whole once. */
  source: v.pipe(
    v.string(),
    v.transform(source => shownUrl(source)),
  ),
  created: v.string(),
  ...digests,
  /** Of an image that was made here. */
  manifest: v.optional(v.record(v.string(), v.unknown())),
})
type Origin = v.InferOutput<typeof Origin>

/** Most bytes of an image where nobody says otherwise. */
export const imageMaxBytes = 256 * 1024 ** 3

/** What was fetched of an image nobody asks for again goes after so long, ms. */
const keptMs = 7 * 24 * 3600 * 1000

export async function openImages(options: ImagesOptions): Promise<Images> {
  const { web, service, maxBytes } = options
  const origins = join(options.stateDir, 'images')
  const parts = join(options.stateDir, 'image-parts')
  await makeFolder(origins)
  await makeFolder(parts)
  await sweep(parts)
  /** The end of the line at each image. */
  const lines = new Map<string, Promise<void>>()
  const users = new Map<string, number>()

  /** One at a time for each image; whoever gives up leaves the line. */
  async function alone<T>(name: string, signal: AbortSignal, action: () => Promise<T>): Promise<T> {
    const before = lines.get(name) ?? Promise.resolve()
    let leave = () => {}
    const mine = new Promise<void>(resolve => {
      leave = resolve
    })
    const line = before.then(() => mine)
    lines.set(name, line)
    const forget = () => {
      if (lines.get(name) === line) lines.delete(name)
    }
    line.then(forget)
    try {
      await untilAborted(before, signal)
      return await action()
    } finally {
      leave()
    }
  }

  async function originOf(name: string): Promise<Origin | undefined> {
    const text = await readIfThere(join(origins, `${name}.json`))
    if (text === undefined) return undefined
    const read = v.safeParse(Origin, parsed(text))
    return read.success ? read.output : undefined
  }

  async function find(hypervisor: Hypervisor, name: string): Promise<ImageVolume | undefined> {
    return (await hypervisor.listImages()).find(image => image.name === name)
  }

  async function ensure({ name, ...request }: ImageRequest, doing: Doing): Promise<void> {
    const { hypervisor, signal } = doing
    const { from, to } = doing.share ?? { from: 0, to: 100 }
    const say = (part: number, step: string) => doing.progress(Math.floor(from + (to - from) * part), step)
    const maker = await makerOf(name)
    if (await find(hypervisor, name)) {
      if (maker === undefined) await rm(join(parts, name), { recursive: true, force: true })
      return refuseOther(name, request.digests, await originOf(name))
    }
    if (maker !== undefined) throw isBeingMade(name)
    const source = await sourceFor(name, request, signal)
    const folder = join(parts, name)
    say(0, 'fetch_image')
    const fetched = await download(
      web,
      {
        url: source.url,
        digests: source.digests,
        maxBytes,
        ...(source.size === undefined ? {} : { sizeBytes: source.size }),
      },
      {
        folder,
        signal,
        progress: (bytes, of) => say(of ? 0.7 * (bytes / of) : 0, 'fetch_image'),
        ...(options.retryMs === undefined ? {} : { retryMs: options.retryMs }),
      },
    )
    say(0.7, 'unpack_image')
    const { compression } = source
    try {
      const path = await unpack(fetched, join(folder, 'image'), { compression, maxBytes, signal })
      const file = await examine(path, source.format)
      say(0.8, 'install_image')
      const progress = (bytes: number) => say(0.8 + 0.2 * (bytes / file.fileBytes), 'install_image')
      // Written first: an image that is in the pool without it would have come from nowhere.
      await remember(name, source)
      await hypervisor.installImage(name, file, { signal, progress })
    } catch (error) {
      // It has the right checksum and will be no better the next time.
      if (error instanceof HypervisorError && error.code === 'ImageInvalid') {
        await rm(folder, { recursive: true, force: true })
        await removeDurable(join(origins, `${name}.json`))
      }
      throw error
    }
    await rm(folder, { recursive: true, force: true })
  }

  async function sourceFor(
    name: string,
    { url, digests = {}, ...about }: Omit<ImageRequest, 'name'>,
    signal: AbortSignal,
  ): Promise<ImageSource> {
    const said = Object.fromEntries(Object.entries(about).filter(([, value]) => value !== undefined))
    const served = url === undefined ? await servedBy(name, signal) : { url, digests: {}, compression: 'none' as const }
    const source: ImageSource = { ...served, ...said, digests: { ...served.digests, ...defined(digests) } }
    if (DIGESTS.some(digest => source.digests[digest])) return source
    throw new HypervisorError('ImageSourceInvalid', `nothing says the checksum of the file of image ${name}`)
  }

  async function servedBy(name: string, signal: AbortSignal): Promise<ImageSource> {
    if (service === undefined) {
      const message = `image ${name} is not on this server, and neither a url nor an image service (IMGAPI_URL) says where it is`
      throw new HypervisorError('ImageSourceUnknown', message)
    }
    return sourceOf(service, name, await manifestOf(web, service, name, signal))
  }

  async function remember(name: string, { url, digests }: ImageSource): Promise<void> {
    await keep(name, { name, source: shownUrl(url), created: new Date().toISOString(), ...digests })
  }

  /** The task that makes an image of this name. */
  function makerOf(name: string): Promise<string | undefined> {
    return readIfThere(join(parts, name, makerFile))
  }

  async function keepFor(name: string, taskId: string): Promise<void> {
    await makeFolder(join(parts, name))
    await writeDurable(join(parts, name, makerFile), taskId)
  }

  async function keep(name: string, origin: Origin): Promise<void> {
    await writeDurable(join(origins, `${name}.json`), `${JSON.stringify(origin, null, 2)}\n`)
  }

  async function giveUp(name: string, taskId: string): Promise<void> {
    if ((await makerOf(name)) === taskId) await rm(join(parts, name), { recursive: true, force: true })
  }

  async function remove(name: string, hypervisor: Hypervisor): Promise<void> {
    if ((users.get(name) ?? 0) > 0) throw new HypervisorError('ImageInUse', `a VM is being made from image ${name}`)
    await hypervisor.removeImage(name)
    await removeDurable(join(origins, `${name}.json`))
    await rm(join(parts, name), { recursive: true, force: true })
  }

  return {
    ensure: (request, doing) => alone(request.name, doing.signal, () => ensure(request, doing)),
    hasService: () => service !== undefined,
    using: async (names, action) => {
      for (const name of names) users.set(name, (users.get(name) ?? 0) + 1)
      try {
        // Whoever removes one of them now has not seen this.
        await Promise.all(names.map(name => lines.get(name)))
        return await action()
      } finally {
        for (const name of names) users.set(name, (users.get(name) ?? 1) - 1)
      }
    },
    list: async hypervisor => {
      const volumes = await hypervisor.listImages()
      return Promise.all(volumes.map(async volume => shown(volume, await originOf(volume.name))))
    },
    made: (name, origin) => keep(name, { name, created: new Date().toISOString(), ...origin }),
    admit: service => {
      try {
        web.admit(service)
      } catch (error) {
        throw new HypervisorError('ImageServiceFailed', (error as Error).message, { cause: error })
      }
    },
    reserve: (name, taskId, { hypervisor, signal }) =>
      alone(name, signal, async () => {
        const maker = await makerOf(name)
        if (maker === taskId) return
        if (maker !== undefined) throw isBeingMade(name)
        if (await find(hypervisor, name)) {
          throw new HypervisorError('ImageExists', `the server has an image ${name} already`)
        }
        await keepFor(name, taskId)
      }),
    giveUp,
    discard: (name, taskId, { hypervisor, signal }) =>
      alone(name, signal, async () => {
        if ((await makerOf(name)) !== taskId) return
        await remove(name, hypervisor).catch(async error => {
          signal.throwIfAborted()
          await giveUp(name, taskId)
          throw error
        })
      }),
    partOf: async (name, taskId) => {
      // Again: a task that died after it had given the name up comes here too.
      await keepFor(name, taskId)
      return join(parts, name, 'packed')
    },
    remove: (name, { hypervisor, signal }) => alone(name, signal, () => remove(name, hypervisor)),
  }
}

/** Names the task that makes the image, among the parts of it. */
const makerFile = 'task'

function isBeingMade(name: string): HypervisorError {
  return new HypervisorError('ImageExists', `image ${name} is being made of a VM of this server`)
}

/** The same name for other content would give a VM what nobody asked for. */
function refuseOther(name: string, digests: Digests = {}, origin: Origin | undefined): void {
  for (const digest of DIGESTS) {
    const [wanted, there] = [digests[digest], origin?.[digest]]
    if (!wanted || !there || wanted === there) continue
    const message = `image ${name} is on this server with ${digest.toUpperCase()} ${there}, not ${wanted}: delete it first`
    throw new HypervisorError('ImageChecksumMismatch', message)
  }
}

function shown({ size_bytes, used_by, ...volume }: ImageVolume, origin: Origin | undefined): Image {
  return { uuid: volume.name, size: size_bytes, used_by: used_by.length, used_by_vms: used_by, ...volume, ...origin }
}

function defined(digests: Digests): Digests {
  return Object.fromEntries(Object.entries(digests).filter(([, value]) => value !== undefined))
}

async function sweep(folder: string): Promise<void> {
  for (const name of await readdir(folder)) {
    const { mtimeMs } = await stat(join(folder, name))
    if (Date.now() - mtimeMs > keptMs) await rm(join(folder, name), { recursive: true, force: true })
  }
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
