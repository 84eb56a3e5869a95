/**
 * XDR (RFC 4506) driven by the protocol table: JavaScript values to bytes and back. Every length is checked against
 * the table's bound and against what has arrived, so that a bad message gives an XdrError and never a huge allocation.
 */
import { type Layout, protocol, type Type } from './protocol.ts'

/** The bytes do not fit the layout, or the value cannot be written as it. */
export class XdrError extends Error {
  override name = 'XdrError'
}

/** Writes `value` as `layout`; 64-bit fields take bigint, opaque ones Uint8Array, optional ones null. */
export function encode(layout: Layout, value: unknown): Buffer {
  const writer = new Writer()
  write(writer, layout, value, '')
  return writer.finish()
}

/** Reads one value of `layout`, which must end where the bytes end. */
export function decode(layout: Layout, bytes: Buffer): unknown {
  const reader: Reader = { bytes, at: 0 }
  const value = read(reader, layout, 0)
  if (reader.at !== bytes.length) throw new XdrError(`${bytes.length - reader.at} bytes left over`)
  return value
}

class Writer {
  #bytes = Buffer.allocUnsafe(256)
  #end = 0

  /** Room for `size` more bytes: the buffer and where to write. */
  room(size: number): [Buffer, number] {
    const at = this.#end
    this.#end += size
    if (this.#end > this.#bytes.length) {
      const larger = Buffer.allocUnsafe(Math.max(this.#end, this.#bytes.length * 2))
      this.#bytes.copy(larger, 0, 0, at)
      this.#bytes = larger
    }
    return [this.#bytes, at]
  }

  uint(value: number): void {
    const [bytes, at] = this.room(4)
    bytes.writeUInt32BE(value, at)
  }

  padded(value: Uint8Array): void {
    const size = value.length + padding(value.length)
    const [bytes, at] = this.room(size)
    bytes.fill(0, at, at + size)
    bytes.set(value, at)
  }

  finish(): Buffer {
    return this.#bytes.subarray(0, this.#end)
  }
}

interface Reader {
  bytes: Buffer
  at: number
}

const integers = {
  int: { min: -0x80000000, max: 0x7fffffff },
  uint: { min: 0, max: 0xffffffff },
} as const

function write(out: Writer, layout: Layout, value: unknown, path: string): void {
  if (typeof layout !== 'string') {
    writeCombined(out, layout, value, path)
    return
  }
  switch (layout) {
    case 'int':
    case 'uint': {
      const { min, max } = integers[layout]
      if (!Number.isInteger(value) || (value as number) < min || (value as number) > max)
        throw unfit(path, layout, value)
      out.uint((value as number) >>> 0)
      return
    }
    case 'hyper':
    case 'uhyper': {
      const fits = layout === 'hyper' ? BigInt.asIntN : BigInt.asUintN
      if (typeof value !== 'bigint' || fits(64, value) !== value) throw unfit(path, layout, value)
      const [bytes, at] = out.room(8)
      bytes.writeBigUInt64BE(BigInt.asUintN(64, value), at)
      return
    }
    case 'double': {
      if (typeof value !== 'number') throw unfit(path, layout, value)
      const [bytes, at] = out.room(8)
      bytes.writeDoubleBE(value, at)
      return
    }
    case 'string': {
      // C strings end at a NUL, so one inside would arrive cut short.
      if (typeof value !== 'string' || value.includes('\0')) throw unfit(path, layout, value)
      const text = Buffer.from(value, 'utf8')
      bounded(text.length, protocol.stringMax, path)
      out.uint(text.length)
      out.padded(text)
      return
    }
  }
  const type = typeNamed(layout)
  if (typeof value !== 'object' || value === null) throw unfit(path, layout, value)
  const given = value as Record<string, unknown>
  if (Array.isArray(type)) {
    for (const [field, inner] of type) write(out, inner, given[field], path ? `${path}.${field}` : field)
    return
  }
  const arm = type.cases.find(([tag]) => tag === given['type'])
  if (!arm) throw unfit(`${path}.type`, layout, given['type'])
  write(out, 'int', arm[0], path)
  write(out, arm[1], given['value'], `${path}.value`)
}

function writeCombined(out: Writer, layout: Exclude<Layout, string>, value: unknown, path: string): void {
  switch (layout[0]) {
    case 'optional':
      out.uint(value === null || value === undefined ? 0 : 1)
      if (value !== null && value !== undefined) write(out, layout[1], value, path)
      return
    case 'opaque':
    case 'bytes':
      if (!(value instanceof Uint8Array)) throw unfit(path, layout[0], value)
      if (layout[0] === 'opaque' && value.length !== layout[1]) throw unfit(path, `${layout[1]} bytes`, value.length)
      bounded(value.length, layout[1], path)
      if (layout[0] === 'bytes') out.uint(value.length)
      out.padded(value)
      return
    case 'list':
    case 'array':
      if (!Array.isArray(value)) throw unfit(path, layout[0], value)
      if (layout[0] === 'array' && value.length !== layout[2]) throw unfit(path, `${layout[2]} items`, value.length)
      bounded(value.length, layout[2], path)
      if (layout[0] === 'list') out.uint(value.length)
      for (const [index, item] of value.entries()) write(out, layout[1], item, `${path}[${index}]`)
  }
}

function read(from: Reader, layout: Layout, depth: number): unknown {
  if (depth > 32) throw new XdrError('nested too deeply')
  if (typeof layout !== 'string') return readCombined(from, layout, depth)
  switch (layout) {
    case 'int':
      return take(from, 4).readInt32BE()
    case 'uint':
      return take(from, 4).readUInt32BE()
    case 'hyper':
      return take(from, 8).readBigInt64BE()
    case 'uhyper':
      return take(from, 8).readBigUInt64BE()
    case 'double':
      return take(from, 8).readDoubleBE()
    case 'string':
      return takePadded(from, length(from, protocol.stringMax)).toString('utf8')
  }
  const type = typeNamed(layout)
  if (Array.isArray(type)) {
    return Object.fromEntries(type.map(([field, inner]) => [field, read(from, inner, depth + 1)]))
  }
  const tag = take(from, 4).readInt32BE()
  const arm = type.cases.find(([known]) => known === tag)
  if (!arm) throw new XdrError(`${layout} has no case ${tag}`)
  return { type: tag, value: read(from, arm[1], depth + 1) }
}

function readCombined(from: Reader, layout: Exclude<Layout, string>, depth: number): unknown {
  switch (layout[0]) {
    case 'optional': {
      const present = take(from, 4).readUInt32BE()
      if (present > 1) throw new XdrError(`optional marker ${present}`)
      return present ? read(from, layout[1], depth + 1) : null
    }
    case 'opaque':
      return Uint8Array.from(takePadded(from, layout[1]))
    case 'bytes':
      return Uint8Array.from(takePadded(from, length(from, layout[1])))
    case 'list':
    case 'array': {
      const count = layout[0] === 'list' ? length(from, layout[2]) : layout[2]
      const items: unknown[] = []
      for (let index = 0; index < count; index += 1) items.push(read(from, layout[1], depth + 1))
      return items
    }
  }
}

function take(from: Reader, size: number): Buffer {
  if (from.at + size > from.bytes.length) {
    throw new XdrError(`${size} bytes wanted, ${from.bytes.length - from.at} are there`)
  }
  from.at += size
  return from.bytes.subarray(from.at - size, from.at)
}

function takePadded(from: Reader, size: number): Buffer {
  const bytes = take(from, size)
  take(from, padding(size))
  return bytes
}

function length(from: Reader, max: number): number {
  const size = take(from, 4).readUInt32BE()
  // Each item takes at least a byte, so a count beyond what has arrived is a lie.
  if (size > max || size > from.bytes.length - from.at) throw new XdrError(`length ${size} is more than fits`)
  return size
}

function padding(size: number): number {
  return (4 - (size % 4)) % 4
}

function bounded(size: number, max: number, path: string): void {
  if (size > max) throw new XdrError(`${path || 'value'}: ${size} is more than the protocol's limit ${max}`)
}

function typeNamed(name: string): Type {
  const type = protocol.types[name]
  if (!type) throw new XdrError(`unknown type ${name}`)
  return type
}

function unfit(path: string, wanted: string, value: unknown): XdrError {
  const shown = typeof value === 'string' ? JSON.stringify(value.slice(0, 40)) : String(value)
  return new XdrError(`${path || 'value'}: ${shown} is no ${wanted}`)
}
