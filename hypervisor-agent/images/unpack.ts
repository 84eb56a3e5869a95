/** Unpacks a fetched image and looks what it is: qcow2 or raw, and nothing that leads to other files of the node. */
import { spawn } from 'node:child_process'
import { createReadStream, createWriteStream } from 'node:fs'
import { open, stat } from 'node:fs/promises'
import type { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { createGunzip } from 'node:zlib'
import type { Compression, ImageFormat } from '../../actors/contract/image.ts'
import { HypervisorError } from '../hypervisor.ts'

/** An image as a file of the node. */
export interface ImageFile {
  path: string
  format: ImageFormat
  fileBytes: number
  /** What its disk holds. */
  capacityBytes: number
}

/** Writes the unpacked file beside; answers which file holds the image. ImageInvalid where it is not packed so, or too large. */
export async function unpack(
  from: string,
  to: string,
  { compression, maxBytes, signal }: { compression: Compression; maxBytes: number; signal: AbortSignal },
): Promise<string> {
  if (compression === 'none') return from
  let seen = 0
  async function* bounded(pieces: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
    for await (const piece of pieces) {
      seen += piece.length
      if (seen > maxBytes) throw invalid(`unpacked it has more than the ${maxBytes} bytes allowed`)
      yield piece
    }
  }
  try {
    const write = createWriteStream(to, { mode: 0o640 })
    if (compression === 'gzip') await pipeline(createReadStream(from), createGunzip(), bounded, write, { signal })
    else await throughXz(from, signal, pieces => pipeline(pieces, bounded, write, { signal }))
  } catch (error) {
    signal.throwIfAborted()
    if (error instanceof HypervisorError) throw error
    const { code, message } = error as NodeJS.ErrnoException
    if (code === 'ENOSPC')
      throw new HypervisorError('InsufficientStorage', 'there is no room to unpack it', { cause: error })
    throw invalid(`it cannot be unpacked as ${compression}: ${message}`, error)
  }
  return to
}

async function throughXz(from: string, signal: AbortSignal, take: (out: Readable) => Promise<void>): Promise<void> {
  const xz = spawn('xz', ['--decompress', '--stdout', '--', from], { stdio: ['ignore', 'pipe', 'pipe'], signal })
  let said = ''
  xz.stderr.on('data', chunk => {
    said = `${said}${chunk}`.slice(-500)
  })
  const ended = new Promise<void>((resolve, reject) => {
    xz.once('error', error => {
      const isAbsent = (error as NodeJS.ErrnoException).code === 'ENOENT'
      reject(isAbsent ? invalid('this server has no xz: install xz-utils', error) : error)
    })
    xz.once('close', code => (code === 0 ? resolve() : reject(invalid(`xz refuses it: ${said.trim()}`))))
  })
  ended.catch(() => {})
  try {
    await take(xz.stdout)
  } catch (error) {
    xz.kill('SIGKILL')
    throw error
  }
  await ended
}

const qcow2Magic = 0x514649fb
const headerBytes = 104
/** Incompatible features: an external data file. */
const externalData = 4n

/**
 * What the file is. A qcow2 that names a backing file or an external data file is ImageInvalid: QEMU would open that path on this
 * node. So is a raw image that begins like a qcow2, since who looks at it later could take it for one.
 */
export async function examine(path: string, said: ImageFormat | undefined): Promise<ImageFile> {
  const fileBytes = (await stat(path)).size
  const header = await firstBytes(path)
  const isQcow2 = header.length >= 4 && header.readUInt32BE(0) === qcow2Magic
  const format = isQcow2 ? 'qcow2' : 'raw'
  if (said !== undefined && said !== format) throw invalid(`it is said to be ${said} and is ${format}`)
  if (fileBytes === 0) throw invalid('it is empty')
  if (!isQcow2) return { path, format, fileBytes, capacityBytes: fileBytes }
  if (header.length < 72) throw invalid('its header is cut off')
  const version = header.readUInt32BE(4)
  if (version !== 2 && version !== 3) throw invalid(`it is a qcow of version ${version}`)
  if (header.readBigUInt64BE(8) !== 0n) throw invalid('it stands on a backing file')
  if (header.readUInt32BE(32) !== 0) throw invalid('it is encrypted')
  if (version === 3) {
    if (header.length < headerBytes) throw invalid('its header is cut off')
    if ((header.readBigUInt64BE(72) & externalData) !== 0n) throw invalid('it keeps its data in another file')
  }
  const capacityBytes = Number(header.readBigUInt64BE(24))
  if (!Number.isSafeInteger(capacityBytes) || capacityBytes === 0) throw invalid(`its disk has ${capacityBytes} bytes`)
  return { path, format, fileBytes, capacityBytes }
}

async function firstBytes(path: string): Promise<Buffer> {
  const file = await open(path, 'r')
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(headerBytes), 0, headerBytes, 0)
    return buffer.subarray(0, bytesRead)
  } finally {
    await file.close()
  }
}

function invalid(message: string, cause?: unknown): HypervisorError {
  return new HypervisorError('ImageInvalid', `the image cannot be used: ${message}`, { cause })
}
