/** Packs the file of an image as an image service takes it, and counts its checksums on the way. */
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { createWriteStream } from 'node:fs'
import { rm } from 'node:fs/promises'
import { Readable, type Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { createGzip } from 'node:zlib'
import type { Compression } from '../../actors/contract/image.ts'
import { HypervisorError } from '../hypervisor.ts'

/** The file as it is packed. */
export interface Packed {
  /** Bytes. */
  size: number
  sha1: string
  sha256: string
  compression: Compression
}

/** Writes it to `path`, anew if something is there; without a path it only counts. InsufficientStorage, TaskFailed without xz. */
export async function pack(
  pieces: AsyncIterable<Uint8Array>,
  { path, compression, signal }: { path?: string; compression: Compression; signal: AbortSignal },
): Promise<Packed> {
  const hashes = [createHash('sha1'), createHash('sha256')] as const
  let size = 0
  async function* counted(packed: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    for await (const piece of packed) {
      for (const hash of hashes) hash.update(piece)
      size += piece.length
      yield piece
    }
  }
  const write = path === undefined ? drain : createWriteStream(path, { mode: 0o640 })
  const from = Readable.from(pieces, { objectMode: false })
  try {
    if (compression === 'none') await pipeline(from, counted, write, { signal })
    else if (compression === 'gzip') await pipeline(from, createGzip(), counted, write, { signal })
    else await throughXz(from, signal, packed => pipeline(packed, counted, write, { signal }))
  } catch (error) {
    if (path !== undefined) await rm(path, { force: true })
    signal.throwIfAborted()
    if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error
    throw new HypervisorError('InsufficientStorage', `there is no room to pack the image: ${path}`, { cause: error })
  }
  return { size, sha1: hashes[0].digest('hex'), sha256: hashes[1].digest('hex'), compression }
}

async function drain(pieces: AsyncIterable<Uint8Array>): Promise<void> {
  for await (const _ of pieces);
}

async function throughXz(
  from: Readable,
  signal: AbortSignal,
  take: (packed: Readable) => Promise<void>,
): Promise<void> {
  const xz = spawn('xz', ['--compress', '--stdout', '--quiet'], { stdio: ['pipe', 'pipe', 'pipe'], signal })
  let said = ''
  xz.stderr.on('data', chunk => {
    said = `${said}${chunk}`.slice(-500)
  })
  const ended = new Promise<void>((resolve, reject) => {
    xz.once('error', error => {
      const isAbsent = (error as NodeJS.ErrnoException).code === 'ENOENT'
      reject(isAbsent ? new HypervisorError('TaskFailed', 'this server has no xz: install xz-utils') : error)
    })
    xz.once('close', code => (code === 0 ? resolve() : reject(new HypervisorError('TaskFailed', `xz: ${said.trim()}`))))
  })
  const fed = pipeline(from, xz.stdin as Writable, { signal })
  try {
    await Promise.all([take(xz.stdout), fed, ended])
  } catch (error) {
    xz.kill('SIGKILL')
    const why = await ended.then(
      () => undefined,
      (reason: unknown) => reason,
    )
    // What ended xz says more than the pipe it broke.
    const isPipe = ['EPIPE', 'ERR_STREAM_PREMATURE_CLOSE'].includes((error as NodeJS.ErrnoException).code ?? '')
    throw isPipe && why !== undefined ? why : error
  }
}
