/**
 * Reads a request's body: JSON, form-encoded or empty, at most 1 MiB. Only routes that may have a body come here, because
 * touching it costs several times what a GET does.
 */
import { gunzipSync } from 'node:zlib'
import { type Rejection, rejection } from '../actors/contract/errors.ts'

export const BODY_MAX_BYTES = 1024 * 1024
/** Deeper nesting is refused: what reads the body later recurses. */
export const BODY_MAX_DEPTH = 256

export type Body = { text: string; value: Record<string, unknown> } | { error: Rejection }

const empty: Body = { text: '', value: {} }

/** `maxBytes`: the row's limit. Longer bodies are refused before they are read to their end. */
export async function readBody(
  request: Request,
  header: (name: string) => string | undefined,
  maxBytes = BODY_MAX_BYTES,
): Promise<Body> {
  const length = header('content-length')
  const chunked = header('transfer-encoding') !== undefined
  if (!chunked && (length === undefined || length === '0')) return empty
  if (Number(length ?? 0) > maxBytes) return tooLarge
  let bytes: Buffer | undefined
  try {
    bytes = chunked ? await readStream(request, maxBytes) : Buffer.from(await request.arrayBuffer())
  } catch {
    // The caller left in the middle: its own doing, not a failure to log.
    return { error: rejection('InvalidContent', 'The body ended early') }
  }
  if (!bytes || bytes.length > maxBytes) return tooLarge
  if (bytes.length === 0) return empty
  const plain = decompress(bytes, header('content-encoding')?.toLowerCase(), maxBytes)
  if ('error' in plain) return plain
  return parse(plain.bytes.toString('utf8'), (header('content-type') ?? '').split(';')[0]!.trim().toLowerCase())
}

/** Bytes of a value as JSON; a character may be several. */
export const jsonBytes = (value: unknown): number => Buffer.byteLength(JSON.stringify(value))

const tooLarge: Body = { error: rejection('PayloadTooLarge') }

/** A body without a length, as far as it may go; undefined when it is longer. */
async function readStream(request: Request, maxBytes: number): Promise<Buffer | undefined> {
  if (!request.body) return Buffer.alloc(0)
  const parts: Uint8Array[] = []
  let size = 0
  for await (const part of request.body) {
    size += part.length
    if (size > maxBytes) return undefined
    parts.push(part)
  }
  return Buffer.concat(parts)
}

function decompress(
  bytes: Buffer,
  encoding: string | undefined,
  maxBytes: number,
): { bytes: Buffer } | { error: Rejection } {
  if (encoding === undefined || encoding === 'identity') return { bytes }
  if (encoding !== 'gzip')
    return { error: rejection('UnsupportedMediaType', `Content-Encoding ${encoding} is not known`) }
  try {
    return { bytes: gunzipSync(bytes, { maxOutputLength: maxBytes }) }
  } catch (cause) {
    const long = cause instanceof RangeError
    return { error: long ? rejection('PayloadTooLarge') : rejection('InvalidContent', 'Invalid gzip body') }
  }
}

const parsers: Record<string, (text: string) => Body> = {
  'application/json': parseJson,
  'application/x-www-form-urlencoded': parseForm,
}

function parse(text: string, type: string): Body {
  const parser = parsers[type] ?? (type.endsWith('+json') ? parseJson : undefined)
  return parser ? parser(text) : { error: rejection('UnsupportedMediaType') }
}

function parseJson(text: string): Body {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (cause) {
    return invalidJson(cause instanceof Error ? cause.message : String(cause))
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    return invalidJson('the body is not an object')
  if (depthOf(text) > BODY_MAX_DEPTH) return invalidJson(`nested deeper than ${BODY_MAX_DEPTH}`)
  return { text, value: value as Record<string, unknown> }
}

const invalidJson = (why: string): Body => ({ error: rejection('InvalidContent', `Invalid JSON: ${why}`) })

/** Deepest nesting of well-formed JSON. */
function depthOf(text: string): number {
  let depth = 0
  let deepest = 0
  let quoted = false
  for (let at = 0; at < text.length; at++) {
    const character = text.charCodeAt(at)
    if (quoted) {
      if (character === 0x5c) at++
      else if (character === 0x22) quoted = false
    } else if (character === 0x22) quoted = true
    else if (character === 0x5b || character === 0x7b) deepest = Math.max(deepest, ++depth)
    else if (character === 0x5d || character === 0x7d) depth--
  }
  return deepest
}

function parseForm(text: string): Body {
  return { text, value: collect(new URLSearchParams(text)) }
}

/** Names and values of a query string or a form; a repeated name gives a list. */
export function collect(pairs: URLSearchParams): Record<string, unknown> {
  const values: Record<string, unknown> = Object.create(null)
  for (const [name, value] of pairs) {
    const before = values[name]
    if (before === undefined) values[name] = value
    else if (Array.isArray(before)) before.push(value)
    else values[name] = [before, value]
  }
  return values
}
