/** Tar archives as far as copying needs them: one header written, and the entries of a stream read as it passes. POSIX ustar with GNU's long names. */

const blockBytes = 512
/** Longest name that is believed, bytes. */
const nameMaxBytes = 64 * 1024

export interface TarEntry {
  name: string
  type: 'file' | 'folder' | 'link' | 'other'
  /** Permissions. */
  mode: number
  size: number
  /** Seconds since the epoch. */
  mtime: number
  link?: string
}

const flags: Record<TarEntry['type'], string> = { file: '0', folder: '5', link: '2', other: '0' }

/** What stands before an entry's bytes. */
export function tarHeader(entry: TarEntry): Buffer {
  const long = (flag: string, text: string) => {
    const bytes = Buffer.from(`${text}\0`)
    return Buffer.concat([block({ name: '././@LongLink', mode: 0, size: bytes.length, mtime: 0, flag }), padded(bytes)])
  }
  const { name, link = '' } = entry
  return Buffer.concat([
    ...(Buffer.byteLength(name) > 100 ? [long('L', name)] : []),
    ...(Buffer.byteLength(link) > 100 ? [long('K', link)] : []),
    block({ ...entry, link, flag: flags[entry.type] }),
  ])
}

/** What fills the last block of so many bytes. */
export const tarPadding = (size: number): Buffer => Buffer.alloc((blockBytes - (size % blockBytes)) % blockBytes)
export const tarEnd: Buffer = Buffer.alloc(2 * blockBytes)

const padded = (bytes: Buffer): Buffer => Buffer.concat([bytes, tarPadding(bytes.length)])

function block(of: { name: string; mode: number; size: number; mtime: number; flag: string; link?: string }): Buffer {
  const head = Buffer.alloc(blockBytes)
  head.write(of.name, 0, 100)
  octal(head, of.mode & 0o7777, 100, 8)
  octal(head, 0, 108, 8)
  octal(head, 0, 116, 8)
  if (of.size < 8 ** 11) octal(head, of.size, 124, 12)
  else {
    head[124] = 0x80
    head.writeBigUInt64BE(BigInt(of.size), 128)
  }
  octal(head, Math.max(0, Math.floor(of.mtime)), 136, 12)
  head.write('        ', 148, 8)
  head.write(of.flag, 156, 1)
  head.write(of.link ?? '', 157, 100)
  head.write('ustar\x0000', 257, 8, 'latin1')
  head.write(`${checksum(head).toString(8).padStart(6, '0')}\0 `, 148, 8, 'latin1')
  return head
}

function octal(head: Buffer, value: number, at: number, length: number): void {
  head.write(`${value.toString(8).padStart(length - 1, '0')}\0`, at, length, 'latin1')
}

const checksum = (head: Buffer) => head.reduce((sum, byte, at) => sum + (at >= 148 && at < 156 ? 0x20 : byte), 0)

export interface TarReader {
  /** Takes the next bytes of an archive. Throws an Error for what is none. */
  push(bytes: Uint8Array): void
}

/** Tells of each entry before its bytes, and of those in pieces. */
export function tarReader(on: { entry(entry: TarEntry): void; bytes?(piece: Buffer): void }): TarReader {
  let held: Buffer = Buffer.alloc(0)
  /** Of the entry that is passing: bytes still to come, and their padding; `name` gathers a long name. */
  let left = 0
  let padding = 0
  let gathering: { flag: string; parts: Buffer[] } | undefined
  let long: { name?: string; link?: string } = {}

  function gathered(): void {
    if (!gathering) return
    const bytes = Buffer.concat(gathering.parts)
    if (gathering.flag === 'x') long = { ...long, ...extended(bytes) }
    else long = { ...long, [gathering.flag === 'L' ? 'name' : 'link']: bytes.toString().replace(/\0[\s\S]*$/, '') }
    gathering = undefined
  }

  function header(head: Buffer): void {
    if (head.every(byte => byte === 0)) return
    if (number(head, 148, 8) !== checksum(head)) throw new Error('the bytes are no tar archive')
    const size = number(head, 124, 12)
    const flag = String.fromCharCode(head[156] ?? 0).replace('\0', '0')
    left = size
    padding = tarPadding(size).length
    if (flag === 'L' || flag === 'K' || flag === 'x') {
      if (size > nameMaxBytes) throw new Error('the archive holds a name that is too long')
      gathering = { flag, parts: [] }
      return
    }
    if (flag === 'g') return
    const prefix = head.toString('latin1', 257, 263) === 'ustar\0' ? word(head, 345, 155) : ''
    const name = long.name ?? (prefix ? `${prefix}/${word(head, 0, 100)}` : word(head, 0, 100))
    const link = long.link ?? word(head, 157, 100)
    long = {}
    on.entry({
      name,
      type: ({ 0: 'file', 5: 'folder', 2: 'link' } as const)[flag] ?? 'other',
      mode: number(head, 100, 8),
      size,
      mtime: number(head, 136, 12),
      ...(link ? { link } : {}),
    })
  }

  return {
    push: bytes => {
      held = held.length === 0 ? Buffer.from(bytes) : Buffer.concat([held, bytes])
      for (;;) {
        if (left > 0) {
          const piece = held.subarray(0, Math.min(left, held.length))
          if (piece.length === 0) return
          if (gathering) gathering.parts.push(Buffer.from(piece))
          else on.bytes?.(piece)
          left -= piece.length
          held = held.subarray(piece.length)
          continue
        }
        gathered()
        if (held.length < padding + blockBytes) return
        const head = held.subarray(padding, padding + blockBytes)
        held = held.subarray(padding + blockBytes)
        padding = 0
        header(head)
      }
    },
  }
}

function word(head: Buffer, at: number, length: number): string {
  return head.toString('utf8', at, at + length).replace(/\0[\s\S]*$/, '')
}

function number(head: Buffer, at: number, length: number): number {
  if (((head[at] ?? 0) & 0x80) !== 0) return Number(head.readBigUInt64BE(at + length - 8))
  const text = word(head, at, length).trim()
  return text === '' ? 0 : Number.parseInt(text, 8)
}

/** The name and link of a POSIX extended header: lines of `<length> <key>=<value>`. */
function extended(bytes: Buffer): { name?: string; link?: string } {
  const found: { name?: string; link?: string } = {}
  for (let at = 0; at < bytes.length; ) {
    const blank = bytes.indexOf(0x20, at)
    const length = Number.parseInt(bytes.toString('latin1', at, blank), 10)
    if (blank < 0 || !(length > 0)) break
    const [, key, value = ''] = /^([^=]*)=([\s\S]*)\n$/.exec(bytes.toString('utf8', blank + 1, at + length)) ?? []
    if (key === 'path') found.name = value
    if (key === 'linkpath') found.link = value
    at += length
  }
  return found
}
