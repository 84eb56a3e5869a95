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

/**
 * The fields of an actor's record up to its outbox: all that readers of state need, and half of the work. Records are written from the top down;
 * one that a person has put in another order, or whose own data has a key of that name, is read whole.
 */
export function decodeHead(bytes: Uint8Array): unknown {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8')
  const at = text.indexOf(',"outbox":[')
  if (at > 0) {
    try {
      // Cut inside of anything but the record itself, it does not close with one brace.
      const head = JSON.parse(`${text.slice(0, at)}}`) as object
      if ('snapshot' in head) return head
    } catch {}
  }
  return decode(bytes)
}

const empty = new Uint8Array(0)
