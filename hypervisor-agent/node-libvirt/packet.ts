/**
 * Packets on the socket: a length that counts itself, a header of six numbers, a payload. `PacketReader` puts torn
 * chunks together again.
 */
import { XdrError } from './xdr.ts'

/** Header and payload of one packet. `serial` joins a reply to its call and is 0 for messages. */
export interface Packet {
  program: number
  version: number
  procedure: number
  type: number
  serial: number
  status: number
  payload: Buffer
}

export const PACKET_TYPES = { call: 0, reply: 1, message: 2, stream: 3 } as const
export const PACKET_STATUS = { ok: 0, error: 1, continue: 2 } as const

const headerBytes = 28
/** VIR_NET_MESSAGE_MAX plus the length itself. */
const packetMaxBytes = 33_554_436

export function encodePacket(packet: Packet): Buffer {
  const size = headerBytes + packet.payload.length
  if (size > packetMaxBytes) throw new XdrError(`a packet of ${size} bytes is over the protocol's limit`)
  const bytes = Buffer.allocUnsafe(size)
  bytes.writeUInt32BE(size, 0)
  bytes.writeUInt32BE(packet.program, 4)
  bytes.writeUInt32BE(packet.version, 8)
  bytes.writeInt32BE(packet.procedure, 12)
  bytes.writeUInt32BE(packet.type, 16)
  bytes.writeUInt32BE(packet.serial, 20)
  bytes.writeUInt32BE(packet.status, 24)
  packet.payload.copy(bytes, headerBytes)
  return bytes
}

/** Collects chunks as they come and gives the packets that are whole; throws XdrError on an impossible length. */
export class PacketReader {
  #chunks: Buffer[] = []
  #held = 0

  push(chunk: Buffer): Packet[] {
    this.#chunks.push(chunk)
    this.#held += chunk.length
    const packets: Packet[] = []
    for (let size = this.#nextSize(); size > 0 && this.#held >= size; size = this.#nextSize()) {
      const bytes = this.#join()
      packets.push(parse(bytes.subarray(0, size)))
      this.#chunks = [bytes.subarray(size)]
      this.#held = bytes.length - size
    }
    return packets
  }

  /** Size of the packet that is arriving, 0 while even that is not known. */
  #nextSize(): number {
    if (this.#held < 4) return 0
    if (this.#chunks[0]!.length < 4) this.#join()
    const size = this.#chunks[0]!.readUInt32BE(0)
    if (size < headerBytes || size > packetMaxBytes) throw new XdrError(`packet length ${size}`)
    return size
  }

  #join(): Buffer {
    const whole = this.#chunks.length === 1 ? this.#chunks[0]! : Buffer.concat(this.#chunks)
    this.#chunks = [whole]
    return whole
  }
}

function parse(bytes: Buffer): Packet {
  return {
    program: bytes.readUInt32BE(4),
    version: bytes.readUInt32BE(8),
    procedure: bytes.readInt32BE(12),
    type: bytes.readUInt32BE(16),
    serial: bytes.readUInt32BE(20),
    status: bytes.readUInt32BE(24),
    payload: bytes.subarray(headerBytes),
  }
}
