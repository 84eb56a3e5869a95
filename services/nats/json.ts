/** Everything Muster puts on the wire or into a bucket is JSON text, so that a person with the CLI can read it. */

/** Bytes of a value; `undefined` becomes an empty payload. */
export function encode(value: unknown): Uint8Array {
  return value === undefined ? empty : Buffer.from(JSON.stringify(value))
}

/** The value of a payload; an empty one is `undefined`. Throws SyntaxError for anything that is not JSON. */
export function decode(bytes: Uint8Array): unknown {
  if (bytes.length === 0) return undefined
  return JSON.parse(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8'))
}

const empty = new Uint8Array(0)
