/** A web server with files for nodes to fetch: it serves parts, breaks off, holds back and changes as a test says, and counts. */
import { createHash } from 'node:crypto'
import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

export interface ServedFile {
  content: Buffer
  /** Absent: it has no name for its content. */
  etag?: string
  /** Answers whole files only. */
  ignoresRange?: boolean
  /** Cuts the connection after so many bytes of an answer; once for each entry. */
  breaks?: number[]
  /** Sends this much and then nothing until `release`. */
  holdsAfter?: number
  status?: number
}

export interface ImageServer {
  url: string
  files: Map<string, ServedFile>
  /** `<path>` or `<path> bytes=<n>-` of every request, in order. */
  requests: string[]
  /** Bytes sent so far. */
  sent(): number
  /** Lets what is held back go on. */
  release(): void
  stop(): Promise<void>
}

export const digestsOf = (content: Buffer) => ({
  sha256: createHash('sha256').update(content).digest('hex'),
  sha1: createHash('sha1').update(content).digest('hex'),
})

export async function imageServer(): Promise<ImageServer> {
  const files = new Map<string, ServedFile>()
  const requests: string[] = []
  const held = new Set<() => void>()
  let sent = 0
  const server = createServer((request, response) => {
    const path = request.url ?? ''
    const file = files.get(path)
    const range = request.headers.range
    requests.push(range ? `${path} ${range}` : path)
    if (!file || file.status) {
      response.writeHead(file?.status ?? 404).end()
      return
    }
    const sameFile = !request.headers['if-range'] || request.headers['if-range'] === file.etag
    const from = range && !file.ignoresRange && sameFile ? Number(/bytes=(\d+)-/.exec(range)?.[1] ?? 0) : 0
    const { length } = file.content
    const tag = file.etag ? { etag: file.etag } : {}
    if (from >= length && from > 0) {
      response.writeHead(416, { 'content-range': `bytes */${length}` }).end()
      return
    }
    const part = from > 0 ? { 'content-range': `bytes ${from}-${length - 1}/${length}` } : {}
    response.writeHead(from > 0 ? 206 : 200, { 'content-length': length - from, ...tag, ...part })
    send(response, file, file.content.subarray(from))
  })

  function send(response: ServerResponse, file: ServedFile, body: Buffer): void {
    const broken = file.breaks?.shift()
    if (broken !== undefined) {
      sent += Math.min(broken, body.length)
      response.write(body.subarray(0, broken), () => setTimeout(() => response.destroy(), 20))
      return
    }
    if (file.holdsAfter !== undefined) {
      const first = body.subarray(0, file.holdsAfter)
      sent += first.length
      response.write(first)
      held.add(() => {
        sent += body.length - first.length
        response.end(body.subarray(first.length))
      })
      return
    }
    sent += body.length
    response.end(body)
  }

  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    files,
    requests,
    sent: () => sent,
    release: () => {
      for (const file of files.values()) delete file.holdsAfter
      for (const goOn of held) goOn()
      held.clear()
    },
    stop: async () => {
      const closed = new Promise(resolve => server.close(resolve))
      server.closeAllConnections()
      await closed
    },
  }
}

/** An empty qcow2 image of version 3 with a disk of so many bytes, which QEMU takes; `patch` overwrites bytes of its header. */
export function qcow2(capacityBytes: number, patch: (header: Buffer) => void = () => {}): Buffer {
  const cluster = 64 * 1024
  const image = Buffer.alloc(4 * cluster)
  image.write('QFI\xfb', 0, 'latin1')
  image.writeUInt32BE(3, 4)
  image.writeUInt32BE(16, 20)
  image.writeBigUInt64BE(BigInt(capacityBytes), 24)
  // The table of the disk's blocks, one entry for each 512 MiB, in cluster 3; that of reference counts in 1 and 2.
  image.writeUInt32BE(Math.ceil(capacityBytes / (512 * 1024 * 1024)), 36)
  image.writeBigUInt64BE(BigInt(3 * cluster), 40)
  image.writeBigUInt64BE(BigInt(cluster), 48)
  image.writeUInt32BE(1, 56)
  image.writeUInt32BE(4, 96)
  image.writeUInt32BE(104, 100)
  image.writeBigUInt64BE(BigInt(2 * cluster), cluster)
  for (let n = 0; n < 4; n += 1) image.writeUInt16BE(1, 2 * cluster + 2 * n)
  patch(image)
  return image
}
