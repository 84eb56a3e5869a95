/** The codec and the packets: what goes in comes out, and nothing that arrives can break more than one call. */

import fc from 'fast-check'
import * as assert from 'uvu/assert'
import { suite } from '../../../test/suite.ts'
import { encodePacket, type Packet, PacketReader } from '../packet.ts'
import { type Layout, protocol } from '../protocol.ts'
import { decode, encode, XdrError } from '../xdr.ts'

const test = suite('codec')
const seed = Number(process.env['FC_SEED'] ?? Date.now() % 2 ** 31)
console.log(`seed ${seed} (FC_SEED repeats it)`)

test('known values have the bytes that RFC 4506 gives them', () => {
  const hex = (layout: Layout, value: unknown) => encode(layout, value).toString('hex')
  assert.is(hex('int', -2), 'fffffffe')
  assert.is(hex('uint', 4294967295), 'ffffffff')
  assert.is(hex('hyper', -1n), 'ffffffffffffffff')
  assert.is(hex('uhyper', 2n ** 63n), '8000000000000000')
  assert.is(hex('double', 1.5), '3ff8000000000000')
  assert.is(hex('string', 'sillyprog'), '0000000973696c6c7970726f67000000')
  assert.is(hex(['optional', 'int'], null), '00000000')
  assert.is(hex(['optional', 'int'], 7), '0000000100000007')
  assert.is(hex(['bytes', 10], Uint8Array.of(1, 2)), '0000000201020000')
  assert.is(hex(['opaque', 3], Uint8Array.of(1, 2, 3)), '01020300')
  assert.is(hex(['list', 'int', 9], [1, 2]), '000000020000000100000002')
  assert.is(hex('typed_param', { field: 'a', value: { type: 6, value: 1 } }), '00000001610000000000000600000001')
})

test('every structure of the protocol survives encoding and decoding', () => {
  for (const name of Object.keys(protocol.types)) {
    check(
      fc.property(arbitrary(name), value => {
        assert.equal(decode(name, encode(name, value)), value)
      }),
      8,
    )
  }
})

test('the table holds the numbers that libvirt documents', () => {
  assert.is(Object.keys(protocol.procedures).length, 443)
  assert.is(protocol.program, 0x20008086)
  assert.is(protocol.procedures['connect_open']?.number, 1)
  assert.is(protocol.procedures['domain_create_xml']?.number, 10)
  assert.is(protocol.procedures['connect_get_all_domain_stats']?.number, 344)
  assert.is(protocol.procedures['domain_fd_associate']?.number, 443)
})

test('values that do not fit are refused with the path to them', () => {
  const refuses = (layout: Layout, value: unknown, pattern: RegExp) =>
    assert.throws(
      () => encode(layout, value),
      (error: unknown) => error instanceof XdrError && pattern.test(error.message),
    )
  refuses('int', 2 ** 31, /no int/)
  refuses('int', 1.5, /no int/)
  refuses('uint', -1, /no uint/)
  refuses('hyper', 5, /no hyper/)
  refuses('uhyper', -1n, /no uhyper/)
  refuses('string', 'a\0b', /no string/)
  refuses(['opaque', 16], new Uint8Array(15), /16 bytes/)
  refuses(['list', 'int', 2], [1, 2, 3], /limit 2/)
  refuses('nonnull_domain', { name: 'a', uuid: new Uint8Array(16) }, /^id: /)
  refuses('domain_create_args', { dom: { name: 1 } }, /^dom\.name: /)
  refuses('string', 'x'.repeat(protocol.stringMax + 1), /limit 4194304/)
})

test('random bytes either decode or give an XdrError, and never ask for memory that is not there', () => {
  check(
    fc.property(fc.uint8Array({ maxLength: 200 }), fc.constantFrom(...Object.keys(protocol.types)), (bytes, name) => {
      try {
        decode(name, Buffer.from(bytes))
      } catch (error) {
        assert.instance(error, XdrError)
      }
    }),
    2_000,
  )
})

test('bytes left over, a false length and an unknown union case are errors', () => {
  assert.throws(() => decode('int', Buffer.alloc(8)), /left over/)
  assert.throws(() => decode('string', Buffer.from('0040000061626364', 'hex')), /more than fits/)
  assert.throws(() => decode('typed_param_value', Buffer.from('0000000900000000', 'hex')), /no case 9/)
})

test('packets come whole out of any tearing of the stream', () => {
  const packet = fields({
    program: fc.nat(),
    version: fc.nat(),
    procedure: fc.nat(),
    type: fc.nat(6),
    serial: fc.nat(),
    status: fc.nat(2),
    payload: fc.uint8Array({ maxLength: 100 }).map(bytes => Buffer.from(bytes)),
  })
  check(
    fc.property(fc.array(packet, { maxLength: 6 }), fc.array(fc.nat(40), { minLength: 1 }), (packets, cuts) => {
      const stream = Buffer.concat(packets.map(one => encodePacket(one)))
      const reader = new PacketReader()
      const seen: Packet[] = []
      for (let at = 0, turn = 0; at < stream.length; turn += 1) {
        const size = Math.max(1, cuts[turn % cuts.length]!)
        seen.push(...reader.push(Buffer.from(stream.subarray(at, at + size))))
        at += size
      }
      assert.equal(seen, packets)
    }),
    300,
  )
})

test('a packet length that cannot be is an error', () => {
  for (const length of [0, 27, 33_554_437, 0xffffffff]) {
    const bytes = Buffer.alloc(4)
    bytes.writeUInt32BE(length)
    assert.throws(() => new PacketReader().push(bytes), /packet length/)
  }
})

test.run()

function check(property: fc.IProperty<unknown[]>, numRuns: number): void {
  const details = fc.check(property as fc.IProperty<unknown>, { seed, numRuns })
  if (details.failed) throw new Error(`seed ${seed}: ${fc.defaultReportMessage(details)}`)
}

function fields<T>(arbitraries: { [K in keyof T]: fc.Arbitrary<T[K]> }): fc.Arbitrary<T> {
  return fc.record(arbitraries, { noNullPrototype: true }) as fc.Arbitrary<T>
}

/** Values that `layout` can hold. */
function arbitrary(layout: Layout): fc.Arbitrary<unknown> {
  if (typeof layout !== 'string') {
    switch (layout[0]) {
      case 'optional':
        return fc.option(arbitrary(layout[1]))
      case 'opaque':
        return fc.uint8Array({ minLength: layout[1], maxLength: layout[1] })
      case 'bytes':
        return fc.uint8Array({ maxLength: Math.min(layout[1], 20) })
      case 'array':
        return fc.array(arbitrary(layout[1]), { minLength: layout[2], maxLength: layout[2] })
      case 'list':
        return fc.array(arbitrary(layout[1]), { maxLength: Math.min(layout[2], 3) })
    }
  }
  switch (layout) {
    case 'int':
      return fc.integer()
    case 'uint':
      return fc.nat({ max: 2 ** 31 - 1 }).map(half => half * 2 + 1)
    case 'hyper':
      return fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n })
    case 'uhyper':
      return fc.bigInt({ min: 0n, max: 2n ** 64n - 1n })
    case 'double':
      return fc.double({ noNaN: true })
    case 'string':
      return fc.string({ unit: 'grapheme', maxLength: 12 }).filter(text => !text.includes('\0'))
  }
  const type = protocol.types[layout]!
  if (Array.isArray(type)) return fields(Object.fromEntries(type.map(([field, inner]) => [field, arbitrary(inner)])))
  return fc.oneof(...type.cases.map(([tag, inner]) => arbitrary(inner).map(value => ({ type: tag, value }))))
}
