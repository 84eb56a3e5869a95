/**
 * The agent of one node, put together: it answers offers and reads, registers, asks what is open, beats, reports its status, and
 * once a minute compares what is with what should be. A process may run several over simulated hypervisors.
 */
import { join } from 'node:path'
import * as v from 'valibot'
import { rejection } from '../actors/contract/errors.ts'
import { TaskCancel, TaskOffer } from '../actors/contract/messages.ts'
import { HEARTBEAT_MS, type Sysinfo } from '../actors/contract/server.ts'
import { abortable, childOf, pause, within } from './abort.ts'
import { defaultInstallerDir, openAgents } from './agents/agents.ts'
import { answerRead } from './answer-read.ts'
import { openExecutor, vmLane } from './executor.ts'
import { openGuestStreams } from './guest-streams/guest-streams.ts'
import { unhealthy } from './health.ts'
import { type Hypervisor, HypervisorError } from './hypervisor.ts'
import { imageMaxBytes, openImages } from './images/images.ts'
import { fetcher } from './install/fetch.ts'
import { openInstalls } from './install/installs.ts'
import { openJournal } from './journal.ts'
import { openLanes } from './lanes.ts'
import type { Link } from './link.ts'
import type { Log } from './log.ts'
import { openReporter } from './reporter.ts'
import { takeStatus } from './status-event.ts'
import { openStatusLoop, type StatusTimings, statusTimings } from './status-loop.ts'
import { openReceptions } from './streams/receptions.ts'
import { openStreams, type StreamsOptions } from './streams/streams.ts'
import { takeSysinfo, withAgents } from './sysinfo.ts'
import { defaultTimings, type Timings } from './tasks/task.ts'
import type { NodeTools, Tools } from './tools.ts'

export interface AgentOptions {
  serverUuid: string
  /** Opened. */
  hypervisor: Hypervisor
  link: Link
  tools: NodeTools
  /** Holds journal, installs and installers. */
  stateDir: string
  log: Log
  /** Host names that installers and images may come from; absent: all. */
  installAllow?: readonly string[]
  /** Where other agents reach this one with bulk bytes; a free port of 127.0.0.1 where it is not said. */
  streams?: StreamsOptions
  /** Host names that agents may come from; absent: none are installed. And the installer's folder. */
  agentInstallAllow?: readonly string[]
  agentInstallDir?: string
  /** Where images come from that no caller gives an address for, and the most bytes an image may have. */
  imageService?: string
  imageMaxBytes?: number
  timings?: Partial<Timings & StatusTimings & { heartbeatMs: number; reconcileMs: number }>
}

export interface Agent {
  /** Stops working and listening. What runs stays in the journal; guests are not touched. Hypervisor and connection stay open. */
  stop(): Promise<void>
}

/** Tasks that may begin at once, and how long one counts: creating disks loads the host, waiting for a guest does not. */
const parallelTasks = 16
const slotHoldMs = 10_000
const reconcileMs = 60_000
/** A look at the whole node, ms: libvirt answers in milliseconds unless it is stuck. */
const lookLimitMs = 30_000

/** Starts it: returns when the journal is open and it listens. */
export async function startAgent(options: AgentOptions): Promise<Agent> {
  const { serverUuid, hypervisor, link, stateDir, log } = options
  const timings = { ...defaultTimings, ...statusTimings, heartbeatMs: HEARTBEAT_MS, reconcileMs, ...options.timings }
  const stopping = abortable()
  const onDamaged = (file: string, error: unknown) =>
    log.error({ err: error, file }, 'a file of the state folder is damaged')
  const journal = await openJournal(join(stateDir, 'journal'), onDamaged)
  const allowed = options.installAllow ? { allowedHosts: options.installAllow } : {}
  const installs = await openInstalls({ stateDir, onDamaged, ...allowed })
  const images = await openImages({
    stateDir,
    web: fetcher(allowed),
    maxBytes: options.imageMaxBytes ?? imageMaxBytes,
    ...(options.imageService ? { service: options.imageService } : {}),
  })
  const streams = openStreams(options.streams ?? { host: '127.0.0.1', port: 0 })
  const guestStreams = openGuestStreams(streams, hypervisor)
  const agents = await openAgents({
    stateDir,
    installerDir: options.agentInstallDir ?? defaultInstallerDir,
    ...(options.agentInstallAllow ? { allowedHosts: options.agentInstallAllow } : {}),
  })
  const tools: Tools = {
    ...options.tools,
    installs,
    images,
    agents,
    receptions: openReceptions(streams, hypervisor),
    guestStreams,
    sysinfo: async hypervisor =>
      withAgents(await takeSysinfo(serverUuid, hypervisor, options.tools), await agents.installed()),
    history: () => [...journal.history(), ...journal.open().filter(({ offer }) => !journal.remembered(offer.id))],
  }
  const lanes = openLanes({ parallel: parallelTasks, slotHoldMs })
  const reporter = openReporter(link, log)
  const now = Date.now
  const executor = openExecutor({ hypervisor, journal, tools, lanes, owner: reporter, timings, log, now })

  const status = openStatusLoop(
    async signal => {
      const context = { hypervisor, installs, creating: executor.creating, now }
      try {
        const sample = await within(lookLimitMs, signal, stuck, () => takeStatus(context))
        return await reporter.status(sample, signal)
      } catch (error) {
        if (error instanceof HypervisorError) await tellUnhealthy(error, signal)
        throw error
      }
    },
    timings,
    log,
  )

  /** What the hypervisor does not tell stays as it was told last; that it does not is told. */
  async function tellUnhealthy(error: HypervisorError, signal: AbortSignal): Promise<void> {
    const timestamp = new Date(now()).toISOString()
    await reporter.status({ timestamp, health: unhealthy(error, timestamp) }, signal)
  }

  const proceeding = new Set<string>()
  /** Takes installs on that are due. Each VM in its lane, so that a task of it is not disturbed. */
  async function proceedInstalls(): Promise<void> {
    if (installs.isIdle()) return
    for (const uuid of installs.due(await hypervisor.listVms())) {
      if (proceeding.has(uuid)) continue
      proceeding.add(uuid)
      lanes
        .run(vmLane(uuid), async () => {
          if (stopping.signal.aborted) return
          const done = await installs.proceed(hypervisor, uuid)
          if (done === 'nothing') return
          log.info({ vm_uuid: uuid, done }, 'the installer of a VM has stopped')
          status.changed()
        })
        .catch(error => log.error({ err: error, vm_uuid: uuid }, 'a VM cannot be started after its installer'))
        .finally(() => proceeding.delete(uuid))
    }
  }
  const sweepInstalls = () => {
    proceedInstalls().catch(error => log.warn({ err: error }, 'installs cannot be looked at'))
  }

  let told = ''
  async function tellSysinfo(signal: AbortSignal, how: { always: boolean }): Promise<Sysinfo> {
    const sysinfo = await within(lookLimitMs, signal, stuck, () => tools.sysinfo(hypervisor))
    const text = JSON.stringify(sysinfo)
    if (how.always || text !== told) await reporter.sysinfo(sysinfo, signal)
    told = text
    return sysinfo
  }

  /** On every connect: who I am, what am I to do, how is it here. A newer connect replaces an older one's greeting. */
  let greeting = childOf(stopping.signal)
  async function greet(signal: AbortSignal): Promise<void> {
    const sysinfo = await tellSysinfo(signal, { always: true })
    for (const offer of await reporter.sync(Number(sysinfo['Boot Time']), signal)) {
      const answer = await executor.accept(offer)
      if ('error' in answer) log.error({ task_id: offer.id, error: answer.error }, 'an open task cannot be taken on')
    }
    status.changed()
  }
  const greetUntilDone = async (signal: AbortSignal) => {
    for (;;) {
      try {
        return await greet(signal)
      } catch (error) {
        if (signal.aborted) return
        log.warn({ err: error }, 'the node cannot be registered yet')
        await pause(1_000, signal)
      }
    }
  }
  let greetings = 0
  const startGreeting = () => {
    greeting.abort(new Error('a newer connection'))
    greeting.release()
    greeting = childOf(stopping.signal)
    greetings += 1
    greetUntilDone(greeting.signal)
      .catch(() => {})
      .finally(() => {
        greetings -= 1
      })
  }
  // Its record was deleted, or lost: it is a new node to the fleet. While it greets, that is being said already.
  reporter.onUnknown(() => {
    if (greetings > 0 || stopping.signal.aborted) return
    log.warn('there is no record of this node: it registers again')
    startGreeting()
  })

  const stopListening = hypervisor.onChange(() => {
    status.changed()
    sweepInstalls()
  })
  link.serve({
    task: async payload => {
      const offer = v.safeParse(TaskOffer, payload)
      if (!offer.success)
        return { error: rejection('InvalidParameters', `no task offer: ${v.summarize(offer.issues)}`) }
      return executor.accept(offer.output)
    },
    cancel: async payload => {
      const told = v.safeParse(TaskCancel, payload)
      if (!told.success) return { error: rejection('InvalidParameters', 'no id of a task') }
      executor.cancel(told.output.id)
      return { value: {} }
    },
    read: payload => answerRead({ serverUuid, hypervisor, ...tools }, payload, stopping.signal),
  })
  executor.resume()
  sweepInstalls()
  link.onConnected(startGreeting)
  link.beat()
  const beats = setInterval(() => link.beat(), timings.heartbeatMs)
  const reconciles = setInterval(() => {
    sweepInstalls()
    tellSysinfo(stopping.signal, { always: false }).catch(error => {
      if (!stopping.signal.aborted) log.warn({ err: error }, 'the inventory cannot be taken')
    })
  }, timings.reconcileMs)

  return {
    stop: async () => {
      clearInterval(beats)
      clearInterval(reconciles)
      stopListening()
      link.close()
      status.stop()
      executor.stop()
      reporter.stop()
      stopping.abort(new Error('the agent stops'))
      guestStreams.close()
      await streams.close()
      await journal.settled()
    },
  }
}

const stuck = () => new HypervisorError('HypervisorUnavailable', 'the hypervisor does not answer a look at the node')
