/** Two simulated nodes with real agents on a real NATS, between which a VM moves, and gates in their hypervisors where a test can meet it. */
import { randomUUID } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { ActorRecord } from '../../actors/contract/record.ts'
import type { ServerContext } from '../../actors/contract/server.ts'
import type { TaskRecord } from '../../actors/contract/task.ts'
import type { VerbKind, VerbOf, VerbParams, VerbValue } from '../../actors/contract/verbs.ts'
import type { VmContext } from '../../actors/contract/vm.ts'
import { type Agent, startAgent } from '../../hypervisor-agent/agent.ts'
import type { Hypervisor } from '../../hypervisor-agent/hypervisor.ts'
import { openLink } from '../../hypervisor-agent/link.ts'
import type { SimulatedHypervisor } from '../../hypervisor-agent/simulated/simulated.ts'
import { key } from '../../services/nats/buckets.ts'
import type { Caller } from '../../services/nats/caller.ts'
import type { NatsConnection } from '../../services/nats/connect.ts'
import { openRecords } from '../../services/nats/records.ts'
import { eventually } from '../eventually.ts'
import { openSimulatedNode } from '../simulated-node.ts'
import { silent, vmSpec } from '../unit/agent-fixture.ts'

export interface PairNode {
  uuid: string
  hypervisor: SimulatedHypervisor
  /** The next call of this name waits here: `reached` resolves when it does, `open` lets it go on. */
  gate(call: keyof Hypervisor): { reached: Promise<void>; open(): void }
  /** As kill -9 would, but for writes that are under way already; then another life over the same state. */
  kill(): Promise<void>
  start(): Promise<void>
  remove(): void
}

export interface Pair {
  vm: string
  /** Where the VM is, and where it goes next. */
  source(): Promise<PairNode>
  target(): Promise<PairNode>
  migrate(): Promise<string>
  context(): Promise<VmContext>
  state(): Promise<string>
  task(id: string): Promise<TaskRecord | undefined>
  /** At rest: no operation, nothing left over, no task open on either node. */
  rest(): Promise<void>
  /** Copies were seen running on both nodes. */
  doubled: string[]
  nodes: PairNode[]
  stop(): Promise<void>
}

/**
 * `connect`: a connection as an agent. The VM runs on the first node, with `content` on its disk and in its memory, and starts with its
 * node. `live`: it is moved while it runs.
 */
export async function migrationPair(
  { nc, caller, connect }: { nc: NatsConnection; caller: Caller; connect(uuid: string): Promise<NatsConnection> },
  { content, live }: { content: string; live: boolean },
): Promise<Pair> {
  const doubled: string[] = []
  const nodes = [await node(connect), await node(connect)]
  for (const { hypervisor } of nodes) {
    hypervisor.onChange(({ uuid, what }) => {
      if ((what !== 'started' && what !== 'resumed') || uuid === undefined) return
      if (nodes.every(one => one.hypervisor.world.guest(uuid)?.state === 'running')) doubled.push(uuid)
    })
  }
  const records = openRecords(nc)
  const call: Call = async (kind, id, verb, params) => {
    const reply = await caller.call(kind, id, verb, params)
    if ('error' in reply) throw new Error(`${verb}: ${reply.error.code} ${reply.error.message}`)
    return reply.value
  }
  const spec = vmSpec({
    customer_metadata: { color: 'green' },
    tags: { role: 'web' },
    disks: [{ size_mib: 64 }, { size_mib: 32 }],
  })
  const vm = spec.uuid
  const record = async () => (await call('vm', vm, 'get', {})) as ActorRecord
  const context = async () => (await record()).snapshot.context as unknown as VmContext
  const open = async ({ uuid }: PairNode) => {
    const { snapshot } = (await call('cn', uuid, 'get', {})) as ActorRecord
    return Object.keys((snapshot.context as unknown as ServerContext).open)
  }
  const on = async (is: boolean) => {
    const { server_uuid } = await context()
    return nodes.find(({ uuid }) => (uuid === server_uuid) === is) as PairNode
  }
  const pair: Pair = {
    vm,
    doubled,
    nodes,
    source: () => on(true),
    target: () => on(false),
    migrate: async () => {
      const { uuid } = await on(false)
      const token = randomUUID().replaceAll('-', '').repeat(2)
      const params = { target_server_uuid: uuid, token, ...(live ? { live } : { force: true }) }
      const { id } = (await call('vm', vm, 'migrate', { task_id: randomUUID(), params })) as { id: string }
      return id
    },
    context,
    state: async () => (await record()).state,
    task: async id => (await records.get('task', key.task(id)))?.value as TaskRecord | undefined,
    rest: async () => {
      await eventually(
        async () => {
          const { operation, migration, leftovers = [] } = await context()
          if (operation || migration || leftovers.length > 0) return false
          return (await Promise.all(nodes.map(open))).flat().length === 0
        },
        { withinMs: 30_000, what: `rest of ${vm}` },
      )
    },
    stop: async () => {
      for (const one of nodes) await one.kill()
      for (const { hypervisor } of nodes) await hypervisor.close()
      for (const one of nodes) one.remove()
    },
  }
  const [first] = nodes as [PairNode, PairNode]
  const isKnown = async ({ uuid }: PairNode) => 'value' in (await caller.call('cn', uuid, 'get', {}))
  await eventually(async () => (await Promise.all(nodes.map(isKnown))).every(Boolean), {
    withinMs: 30_000,
    what: 'both nodes to be known',
  })
  await call('vm', vm, 'create', { server_uuid: first.uuid, task_id: randomUUID(), spec })
  await eventually(async () => (await record()).state === 'running', { withinMs: 20_000, what: `${vm} to run` })
  first.hypervisor.world.write(vm, { disk: content, memory: content })
  return pair
}

type Call = <K extends VerbKind, V extends VerbOf<K>>(
  kind: K,
  id: string,
  verb: V,
  params: VerbParams<K, V>,
) => Promise<VerbValue<K, V>>

async function node(connect: (uuid: string) => Promise<NatsConnection>): Promise<PairNode> {
  const uuid = randomUUID()
  const stateDir = mkdtempSync(join(tmpdir(), 'muster-node-'))
  const { hypervisor, tools } = await openSimulatedNode({ seed: uuid, stateDir })
  const nc = await connect(uuid)
  const gates = new Map<string, { arrive(): void; opened: Promise<void> }>()
  const gated = new Proxy(hypervisor, {
    get: (target, name, receiver) => {
      const member = Reflect.get(target, name, receiver)
      if (typeof member !== 'function') return member
      return (...args: unknown[]) => {
        const gate = gates.get(String(name))
        if (!gate) return Reflect.apply(member, target, args)
        gates.delete(String(name))
        gate.arrive()
        return gate.opened.then(() => Reflect.apply(member, target, args))
      }
    },
  })
  let agent: Agent | undefined
  const timings = { settleMs: 20, apartMs: 60, heartbeatMs: 500, pressEveryMs: 40, lookEveryMs: 20, bootWatchMs: 40 }
  const made: PairNode = {
    uuid,
    hypervisor,
    gate: call => {
      let open = () => {}
      const opened = new Promise<void>(resolve => {
        open = resolve
      })
      const reached = new Promise<void>(resolve => {
        gates.set(call, { arrive: resolve, opened })
      })
      return { reached, open }
    },
    kill: async () => {
      await agent?.stop()
      agent = undefined
    },
    start: async () => {
      const link = openLink(nc, uuid)
      agent = await startAgent({ serverUuid: uuid, hypervisor: gated, tools, link, stateDir, log: silent, timings })
    },
    remove: () => rmSync(stateDir, { recursive: true, force: true }),
  }
  await made.start()
  return made
}
