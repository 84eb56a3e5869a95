/** Starts actor hosts as processes of their own and waits until every partition is answered for. */
import { join } from 'node:path'
import { projectDir } from '../scripts/config.ts'
import { actorHost } from '../scripts/processes.ts'
import type { Program } from '../scripts/supervise.ts'
import type { NatsConnection } from '../services/nats/connect.ts'
import { request } from '../services/nats/request.ts'
import { PARTITIONS, partitionOf, subject } from '../services/nats/subjects.ts'
import type { TestNats } from '../test/nats.ts'
import type { Running, Scope } from './scope.ts'
import { vmUuid } from './seed.ts'

const env = { ...process.env, LOG_LEVEL: 'warn' }

/** services/actor-host, as operators run it. */
export function realHost(scope: Scope, nats: TestNats): Running {
  return scope.spawn(actorHost({ nats: { url: nats.url, seedFile: () => undefined }, env }))
}

/** The runtime alone (host.ts), with or without batches. */
export function plainHost(scope: Scope, nats: TestNats, mode: 'batched' | 'unbatched'): Running {
  const args = ['--import', 'tsx', join(projectDir, 'bench/host.ts'), nats.url, mode, mode]
  const program: Program = { name: `host, ${mode}`, file: mode, command: process.execPath, args, env }
  return scope.spawn(program)
}

/** Resolves when one VM of every partition was answered for; needs the first few hundred seeded VMs. */
export async function serving(nc: NatsConnection, host: Running, withinMs = 60_000): Promise<void> {
  const end = performance.now() + withinMs
  await Promise.all(
    onePerPartition().map(async id => {
      for (;;) {
        const reply = await request(nc, subject.command('vm', id, 'get'), {}, { deadlineMs: 200 })
        if ('value' in reply) return
        host.check()
        if (performance.now() > end) throw new Error(`vm ${id} was not answered for: ${JSON.stringify(reply.error)}`)
      }
    }),
  )
}

/** Seeded VMs enough for every partition to have one. */
export const coverage = 1_000

function onePerPartition(): string[] {
  const found = new Map<number, string>()
  for (let n = 0; n < coverage; n++) found.set(partitionOf(vmUuid(n)), vmUuid(n))
  if (found.size < PARTITIONS) throw new Error(`${coverage} VMs reach only ${found.size} of ${PARTITIONS} partitions`)
  return [...found.values()]
}
