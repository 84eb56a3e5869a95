/** VMs on their way to this node: each migration's stream, open until its disks are there or it is discarded. Lost with the agent. */
import type { Hypervisor } from '../hypervisor.ts'
import { receiveDisks } from './disks.ts'
import { answerLive, leadTo } from './live.ts'
import type { Streams } from './streams.ts'

export interface Receptions {
  /** Where the disks of this VM, so many, are sent to. */
  expect(wanted: Wanted): Promise<Address>
  /** Where a running guest with so many disks is offered and sent to. */
  expectLive(wanted: Wanted): Promise<Address>
  /** Nothing is written any more when this resolves. */
  end(token: string): Promise<void>
}

interface Wanted {
  uuid: string
  disks: number
  token: string
}
interface Address {
  host: string
  port: number
}

/** The guest on the source is stopped before its disks are sent, which may take an hour. */
const lifetimeMs = 2 * 3600_000
/** The memory comes when the disks are there. */
const wayLifetimeMs = 12 * 3600_000

export function openReceptions(
  streams: Streams,
  hypervisor: Pick<Hypervisor, 'writeDisk' | 'prepareLive'>,
): Receptions {
  /** Tokens of streams that were opened on the word of another, by that one's. */
  const further = new Map<string, string[]>()

  async function openWay(token: string, port: number): Promise<string> {
    const lead = leadTo(port)
    const way = await streams.open({
      lifetimeMs: wayLifetimeMs,
      serve: socket => lead(socket).finally(() => forget(token, way.token)),
    })
    further.set(token, [...(further.get(token) ?? []), way.token])
    return way.token
  }

  function forget(token: string, way: string): void {
    const left = (further.get(token) ?? []).filter(one => one !== way)
    if (left.length > 0) further.set(token, left)
    else further.delete(token)
  }

  return {
    expect: async ({ uuid, disks, token }) => {
      const write = (n: number, pieces: AsyncIterable<Uint8Array>) => hypervisor.writeDisk(uuid, n, pieces)
      const { host, port } = await streams.open({
        token,
        lifetimeMs,
        serve: socket => receiveDisks(socket, disks, write),
      })
      return { host, port }
    },
    expectLive: async ({ uuid, disks, token }) => {
      const { host, port } = await streams.open({
        token,
        lifetimeMs,
        serve: socket =>
          answerLive(
            socket,
            offer => hypervisor.prepareLive(uuid, offer),
            async ports => {
              const memory = [await openWay(token, ports.memory)]
              const each: string[] = []
              for (let n = 0; n < disks; n++) each.push(await openWay(token, ports.disks))
              return { memory, disks: each }
            },
          ),
      })
      return { host, port }
    },
    end: async token => {
      // The first may still be opening others.
      await streams.revoke(token)
      const opened = further.get(token) ?? []
      further.delete(token)
      await Promise.all(opened.map(way => streams.revoke(way)))
    },
  }
}
