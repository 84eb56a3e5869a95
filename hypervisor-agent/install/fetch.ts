/**
 * Fetches files that a caller named, from the hypervisor's network: http and https only, each hop of a redirect checked like the
 * first address, every size and time bounded, digests compared where they are known.
 */
import { createHash } from 'node:crypto'
import { open, rename, rm } from 'node:fs/promises'
import { childOf, within } from '../abort.ts'
import { HypervisorError } from '../hypervisor.ts'

export interface FetchOptions {
  /** Host names that may be asked; absent: all. */
  allowedHosts?: readonly string[]
  /** The setting that names them. */
  setting?: string
  /** Until the answer begins, and between two pieces of it, ms. */
  idleMs?: number
  redirects?: number
}

export interface Fetcher {
  /** Throws for an address that must not be asked on this server. */
  admit(url: string): void
  /** The text behind an address, undefined if the server has none (404, 403 or 410). */
  text(url: string, options: { maxBytes: number; signal: AbortSignal }): Promise<string | undefined>
  /**
   * What is behind an address from its byte `from` on. The answer says where it really begins: at 0 where the server does not
   * serve parts, or where the content is not `version` any more. `whole`: there is nothing after `from`.
   */
  rest(url: string, options: { from: number; version?: string; signal: AbortSignal }): Promise<Rest>
  /** Writes what is behind an address to a file: fsynced, under its name only when whole and right. */
  file(url: string, path: string, options: { maxBytes: number; sha256?: string; signal: AbortSignal }): Promise<void>
}

export interface Rest {
  from: number
  /** Bytes in all, where the server says. */
  size?: number
  /** The server's name for this content, if it has one that tells every byte. */
  version?: string
  whole: boolean
  /** Fails when there are more than so many. */
  pieces(maxBytes: number): AsyncIterable<Uint8Array>
}

/** A fetch that failed. `transient`: it may go well in a moment. */
export class FetchError extends HypervisorError {
  readonly transient: boolean
  constructor(message: string, { cause, transient = false }: { cause?: unknown; transient?: boolean } = {}) {
    super('InstallSourceInvalid', message, cause === undefined ? undefined : { cause })
    this.transient = transient
  }
}

const absent = new Set([403, 404, 410])
const redirecting = new Set([301, 302, 303, 307, 308])

/** An address as it is shown and kept: without query and credentials, which may be what opens it. */
export function shownUrl(address: string | URL): string {
  const text = String(address)
  if (!URL.canParse(text)) return text
  const url = new URL(text)
  Object.assign(url, { username: '', password: '', search: '', hash: '' })
  return url.href
}

/** All failures are InstallSourceInvalid and name the address, as it is shown. */
export function fetcher({
  allowedHosts,
  setting = 'INSTALL_ALLOW',
  idleMs = 30_000,
  redirects = 5,
}: FetchOptions = {}): Fetcher {
  function check(url: URL, from: URL | undefined): void {
    if (url.protocol !== 'http:' && url.protocol !== 'https:')
      throw invalid(`${shownUrl(url)} is neither http nor https`)
    if (url.username || url.password) throw invalid('an install location must not carry a password')
    if (from?.protocol === 'https:' && url.protocol === 'http:') {
      throw invalid(`${shownUrl(from)} leads from https to http: ${shownUrl(url)}`)
    }
    if (allowedHosts && !allowedHosts.includes(url.hostname)) {
      throw invalid(`fetching from ${url.hostname} is not allowed on this server (${setting})`)
    }
  }

  /** Resolves when the head of the answer is there; the body is bounded piece by piece. */
  async function answer(url: URL, signal: AbortSignal, headers: Record<string, string>): Promise<Response> {
    const slow = childOf(signal)
    const timer = setTimeout(() => slow.abort(new Error(`no answer within ${idleMs} ms`)), idleMs)
    try {
      return await fetch(url, { redirect: 'manual', headers, signal: slow.signal })
    } catch (error) {
      signal.throwIfAborted()
      throw invalid(`${shownUrl(url)} cannot be fetched: ${reasonOf(error)}`, { cause: error, transient: true })
    } finally {
      clearTimeout(timer)
      slow.release()
    }
  }

  /** Follows redirects; the body has not been read yet. */
  async function ask(address: string, signal: AbortSignal, headers: Record<string, string> = {}): Promise<Response> {
    let url = new URL(address)
    let from: URL | undefined
    for (let hop = 0; hop <= redirects; hop++) {
      check(url, from)
      const response = await answer(url, signal, headers)
      const target = redirecting.has(response.status) ? response.headers.get('location') : null
      if (target === null) return response
      await response.body?.cancel()
      from = url
      url = parse(target, url)
    }
    throw invalid(`${address} leads on more than ${redirects} times`)
  }

  /** The pieces of a body, no more than `maxBytes` and none later than `idleMs` after the one before. */
  async function* pieces(response: Response, maxBytes: number, signal: AbortSignal): AsyncGenerator<Uint8Array> {
    const said = Number(response.headers.get('content-length') ?? 0)
    if (said > maxBytes) throw invalid(`${shownUrl(response.url)} has ${said} bytes, more than the ${maxBytes} allowed`)
    const reader = response.body?.getReader()
    if (!reader) return
    let seen = 0
    try {
      for (;;) {
        const silent = () => invalid(`${shownUrl(response.url)} went silent for ${idleMs} ms`, { transient: true })
        const piece = await within(idleMs, signal, silent, () => reader.read())
        if (piece.done) return
        seen += piece.value.length
        if (seen > maxBytes) throw invalid(`${shownUrl(response.url)} has more than the ${maxBytes} bytes allowed`)
        yield piece.value
      }
    } catch (error) {
      signal.throwIfAborted()
      if (error instanceof HypervisorError) throw error
      throw invalid(`${shownUrl(response.url)} broke off: ${reasonOf(error)}`, { cause: error, transient: true })
    } finally {
      // A reader that failed rejects its cancel with the same error, which is known already.
      reader.cancel().catch(() => {})
    }
  }

  return {
    admit: url => check(new URL(url), undefined),
    text: async (url, { maxBytes, signal }) => {
      const response = await ask(url, signal)
      if (absent.has(response.status)) {
        await response.body?.cancel()
        return undefined
      }
      await needOk(response, url)
      const parts: Uint8Array[] = []
      for await (const piece of pieces(response, maxBytes, signal)) parts.push(piece)
      return Buffer.concat(parts).toString('utf8')
    },
    rest: async (url, { from, version, signal }) => {
      const part = from > 0 ? { range: `bytes=${from}-`, ...(version ? { 'if-range': version } : {}) } : {}
      // Compression on the way would hide the bytes that a digest is of.
      const response = await ask(url, signal, { 'accept-encoding': 'identity', ...part })
      const range = response.headers.get('content-range') ?? ''
      if (response.status === 416) {
        await response.body?.cancel()
        const size = Number(/^bytes \*\/(\d+)$/.exec(range)?.[1] ?? Number.NaN)
        return { from: size === from ? from : 0, whole: size === from, pieces: () => nothing() }
      }
      await needOk(response, url)
      const [, start, all] = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(range) ?? []
      const size = Number(response.status === 206 ? all : (response.headers.get('content-length') ?? Number.NaN))
      const tag = response.headers.get('etag')
      return {
        from: response.status === 206 ? Number(start) : 0,
        ...(Number.isSafeInteger(size) ? { size } : {}),
        // A weak tag does not tell every byte.
        ...(tag?.startsWith('"') ? { version: tag } : {}),
        whole: false,
        pieces: maxBytes => pieces(response, maxBytes, signal),
      }
    },
    file: async (url, path, { maxBytes, sha256, signal }) => {
      const response = await ask(url, signal)
      await needOk(response, url)
      const beside = `${path}.part`
      const hash = createHash('sha256')
      const file = await open(beside, 'w', 0o644)
      try {
        for await (const piece of pieces(response, maxBytes, signal)) {
          hash.update(piece)
          await file.write(piece)
        }
        // QEMU runs as another user, and a strict umask of the service must not hide the file from it.
        await file.chmod(0o644)
        await file.sync()
      } catch (error) {
        await rm(beside, { force: true })
        throw error
      } finally {
        await file.close()
      }
      const digest = hash.digest('hex')
      if (sha256 !== undefined && digest !== sha256) {
        await rm(beside, { force: true })
        throw invalid(`${shownUrl(url)} is not what its tree says: SHA-256 is ${digest}, not ${sha256}`)
      }
      await rename(beside, path)
    },
  }
}

async function* nothing(): AsyncGenerator<Uint8Array> {}

async function needOk(response: Response, url: string): Promise<void> {
  if (response.ok) return
  await response.body?.cancel()
  throw invalid(`${shownUrl(url)} answers ${response.status}`, { transient: response.status >= 500 })
}

function parse(target: string, base: URL): URL {
  try {
    return new URL(target, base)
  } catch (error) {
    throw invalid(`${base.href} leads to something that is no address`, { cause: error })
  }
}

function invalid(message: string, how?: { cause?: unknown; transient?: boolean }): FetchError {
  return new FetchError(message, how)
}

/** fetch() says "fetch failed" and keeps the reason in the cause. */
function reasonOf(error: unknown): string {
  const inner = error instanceof Error && error.cause instanceof Error ? error.cause : error
  if (!(inner instanceof Error)) return String(inner)
  const { code } = inner as NodeJS.ErrnoException
  return inner.message || code || inner.name
}
