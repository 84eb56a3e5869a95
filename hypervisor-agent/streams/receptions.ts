/** Disks on their way to this node: each migration's stream, open until its disks are there or it is discarded. Lost with the agent. */
import type { Hypervisor } from '../hypervisor.ts'
import { receiveDisks } from './disks.ts'
import type { Streams } from './streams.ts'

export interface Receptions {
  /** Where the disks of this VM, so many, are sent to. */
  expect(wanted: { uuid: string; disks: number; token: string }): Promise<{ host: string; port: number }>
  /** Nothing is written any more when this resolves. */
  end(token: string): Promise<void>
}

/** The guest on the source is stopped before its disks are sent, which may take an hour. */
const lifetimeMs = 2 * 3600_000

export function openReceptions(streams: Streams, hypervisor: Pick<Hypervisor, 'writeDisk'>): Receptions {
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
    end: token => streams.revoke(token),
  }
}
