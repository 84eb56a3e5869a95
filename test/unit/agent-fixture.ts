/** An agent's working parts over a folder of its own, a simulated hypervisor and an owner that a test scripts. */
import { randomUUID } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import * as v from 'valibot'
import type { TaskOffer, TaskReport } from '../../actors/contract/messages.ts'
import type { TaskName } from '../../actors/contract/task.ts'
import { VmSpec } from '../../actors/contract/vm.ts'
import { type Agents, openAgents } from '../../hypervisor-agent/agents/agents.ts'
import { type Executor, type ExecutorOptions, openExecutor } from '../../hypervisor-agent/executor.ts'
import { openGuestStreams } from '../../hypervisor-agent/guest-streams/guest-streams.ts'
import type { Hypervisor } from '../../hypervisor-agent/hypervisor.ts'
import { type Images, openImages } from '../../hypervisor-agent/images/images.ts'
import { fetcher } from '../../hypervisor-agent/install/fetch.ts'
import { type Installs, openInstalls } from '../../hypervisor-agent/install/installs.ts'
import { type Journal, openJournal } from '../../hypervisor-agent/journal.ts'
import { openLanes } from '../../hypervisor-agent/lanes.ts'
import type { SimulatedHypervisor } from '../../hypervisor-agent/simulated/simulated.ts'
import { openReceptions } from '../../hypervisor-agent/streams/receptions.ts'
import { openStreams } from '../../hypervisor-agent/streams/streams.ts'
import { takeSysinfo, withAgents } from '../../hypervisor-agent/sysinfo.ts'
import type { NodeTools } from '../../hypervisor-agent/tools.ts'
import { eventually } from '../eventually.ts'
import { openSimulatedNode, type SimulatedNodeOptions } from '../simulated-node.ts'

export const silent = pino({ level: 'silent' })

/** The compute node's side: remembers reports, gives leave unless told otherwise. */
export interface ScriptedOwner {
  reports: TaskReport[]
  /** The answer to a report; default go. A promise that never resolves is an owner that does not answer. */
  answer: (report: TaskReport) => { go: boolean } | Promise<{ go: boolean }>
  ends(id: string): TaskReport[]
  /** The end of a task, waited for. */
  end(id: string, withinMs?: number): Promise<TaskReport>
}

export function scriptedOwner(): ScriptedOwner {
  const owner: ScriptedOwner = {
    reports: [],
    answer: () => ({ go: true }),
    ends: id => owner.reports.filter(one => one.id === id && (one.status === 'complete' || one.status === 'failure')),
    end: (id, withinMs = 10_000) =>
      eventually(() => owner.ends(id)[0], { withinMs, what: `the end of task ${id}` }) as Promise<TaskReport>,
  }
  return owner
}

export interface Node {
  stateDir: string
  hypervisor: SimulatedHypervisor
  tools: NodeTools
  /** When it booted first, seconds since the epoch. */
  bootedAtS: number
  /** MAC address of the port of a bridge. */
  portMac(bridge: string): string
  owner: ScriptedOwner
  /** Starts an agent's parts over the same folder and hypervisor; `through` may stand between. */
  agent(options?: AgentOptions): Promise<Agent>
  remove(): Promise<void>
}

export interface AgentOptions
  extends Partial<
    Pick<ExecutorOptions, 'limitMsOf' | 'timings' | 'progressEveryMs' | 'retryMs' | 'leaveLifetimeMs' | 'now'>
  > {
  through?: (hypervisor: Hypervisor) => Hypervisor
  throughTools?: (tools: NodeTools) => NodeTools
  parallel?: number
  slotHoldMs?: number
  allowedHosts?: string[]
  imageService?: string
  imageMaxBytes?: number
  agentInstallAllow?: string[]
}

export interface Agent {
  executor: Executor
  journal: Journal
  installs: Installs
  images: Images
  agents: Agents
  damaged: string[]
  /** As kill -9 would, but for writes that are under way already. */
  kill(): Promise<void>
}

export const quick = { pressEveryMs: 40, lookEveryMs: 20, stopTimeoutMs: 300, bootWatchMs: 60 }

export async function simulatedNode(options: Partial<SimulatedNodeOptions> = {}): Promise<Node> {
  const stateDir = mkdtempSync(join(tmpdir(), 'muster-agent-'))
  const serverUuid = randomUUID()
  const { hypervisor, tools } = await openSimulatedNode({ seed: serverUuid, stateDir, ...options })
  const owner = scriptedOwner()
  const host = await hypervisor.inventory()
  return {
    stateDir,
    hypervisor,
    tools,
    bootedAtS: host.boot_time_s,
    portMac: bridge => host.nics.find(nic => nic.bridge === bridge)?.mac ?? '',
    owner,
    agent: async (given = {}) => {
      const {
        through = h => h,
        throughTools = same => same,
        parallel = 16,
        slotHoldMs = 10_000,
        allowedHosts,
        imageService,
        imageMaxBytes = 1024 ** 3,
        agentInstallAllow,
        ...rest
      } = given
      const damaged: string[] = []
      const onDamaged = (file: string) => void damaged.push(file)
      const journal = await openJournal(join(stateDir, 'journal'), onDamaged)
      const installs = await openInstalls({ stateDir, onDamaged, ...(allowedHosts ? { allowedHosts } : {}) })
      const images = await openImages({
        stateDir,
        web: fetcher({ idleMs: 2_000, ...(allowedHosts ? { allowedHosts } : {}) }),
        maxBytes: imageMaxBytes,
        retryMs: 20,
        ...(imageService ? { service: imageService } : {}),
      })
      const agents = await openAgents({
        stateDir,
        installerDir: join(stateDir, 'installer'),
        ...{ lookEveryMs: 10, beginsWithinMs: 1_000 },
        ...(agentInstallAllow ? { allowedHosts: agentInstallAllow } : {}),
      })
      let isAlive = true
      const streams = openStreams({ host: '127.0.0.1', port: 0 })
      const guestStreams = openGuestStreams(streams, through(hypervisor))
      const executor = openExecutor({
        hypervisor: through(hypervisor),
        journal,
        tools: {
          ...throughTools(tools),
          installs,
          images,
          agents,
          receptions: openReceptions(streams, through(hypervisor)),
          guestStreams,
          sysinfo: async asked => withAgents(await takeSysinfo(serverUuid, asked, tools), await agents.installed()),
          history: () => journal.history(),
        },
        lanes: openLanes({ parallel, slotHoldMs }),
        owner: {
          report: async report => {
            if (!isAlive) return new Promise<never>(() => {})
            owner.reports.push(report)
            return owner.answer(report)
          },
        },
        timings: quick,
        log: silent,
        now: Date.now,
        progressEveryMs: 5,
        ...rest,
      })
      return {
        executor,
        journal,
        installs,
        images,
        agents,
        damaged,
        kill: async () => {
          isAlive = false
          executor.stop()
          guestStreams.close()
          await streams.close()
          await journal.settled()
        },
      }
    },
    remove: async () => {
      await hypervisor.close()
      rmSync(stateDir, { recursive: true, force: true })
    },
  }
}

export function offer(task: TaskName, params: Record<string, unknown>): TaskOffer {
  return { id: randomUUID(), task, params }
}

export function vmSpec(more: Partial<v.InferInput<typeof VmSpec>> = {}): VmSpec {
  const uuid = more.uuid ?? randomUUID()
  return v.parse(VmSpec, { uuid, name: uuid, memory_mib: 128, vcpus: 1, disks: [{ size_mib: 64 }], nics: [], ...more })
}
