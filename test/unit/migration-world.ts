/** Two nodes as a migration meets them: what each task does to the copies there, in memory, with faults as a test asks for them. */
import type { TaskRecord } from '../../actors/contract/task.ts'
import type { NicSpec, VmContext } from '../../actors/contract/vm.ts'
import { type Fleet, makeFleet, registered, SERVER, specOf, VM } from './fleet.ts'

export const SOURCE = SERVER
export const TARGET = '00000000-0000-4000-8000-000000000002'
export const MIGRATION = 'aaaaaaaa-0000-4000-9000-000000000001'
export const TOKEN = 'a'.repeat(64)
const COOKIE = 'Y29va2ll'

export interface Copy {
  running: boolean
  /** It was copied to the other node while it ran, and stands still here. */
  paused?: boolean
  held: boolean
  /** Whole: it may be started. */
  complete: boolean
  made_by: string
}

/** How a task goes at a node: as asked, refused, lost after its effect, or never accepted. */
export type Fate = 'works' | 'fails' | 'works_but_fails' | 'silent'

export interface World {
  fleet: Fleet
  copies: Map<string, Copy>
  /** Runs the oldest task that an agent was offered and has not ended; false if there is none. */
  work(fate?: (task: TaskRecord) => Fate): boolean
  /** Tasks that an agent could work on now. */
  open(): TaskRecord[]
  /** Everything to its end, agents answering. */
  rest(): void
  state(): string
  context(): VmContext
}

/** `running`: the VM runs on the source. */
export function migrationWorld({ running = true, nics = [] as NicSpec[] } = {}): World {
  const fleet = makeFleet()
  registered(fleet, SOURCE)
  registered(fleet, TARGET)
  const copies = new Map<string, Copy>()
  const id = '00000000-0000-4000-9000-000000000001'
  fleet.command('vm', VM, 'create', { server_uuid: SOURCE, task_id: id, spec: { ...specOf(VM), nics } })
  fleet.settle()
  copies.set(SOURCE, { running, held: false, complete: true, made_by: id })
  const state = running ? 'running' : 'stopped'
  fleet.agent(SOURCE, { id, status: 'accepted' })
  fleet.agent(SOURCE, { id, status: 'complete', result: { vm: { uuid: VM, state } } })
  fleet.settle()

  const open = () => {
    const known = [SOURCE, TARGET].flatMap(server => {
      const { open } = fleet.record('cn', server).snapshot.context as { open: Record<string, { state: string }> }
      return Object.entries(open).filter(([, task]) => task.state !== 'held')
    })
    return known.map(([taskId]) => fleet.tasks.get(taskId) as TaskRecord)
  }
  const seen = (server: string) => {
    const copy = copies.get(server)
    return { vm: copy ? { uuid: VM, state: copy.running ? 'running' : 'stopped' } : null }
  }
  const world: World = {
    fleet,
    copies,
    open,
    work: (fate = () => 'works') => {
      const task = open()[0]
      if (!task) return false
      const how = fate(task)
      if (how === 'silent') {
        fleet.advance(61_000, { agentListens: false })
        return true
      }
      const { server_uuid: server } = task
      fleet.agent(server, { id: task.id, status: 'accepted' })
      const outcome = how === 'fails' ? broken : perform(task, copies, nics)
      const result = { ...seen(server), ...outcome.result }
      const error = how === 'works_but_fails' ? broken.error : outcome.error
      if (error) fleet.agent(server, { id: task.id, status: 'failure', error, result })
      else fleet.agent(server, { id: task.id, status: 'complete', result })
      fleet.settle()
      return true
    },
    rest: () => {
      for (let round = 0; round < 200; round++) {
        fleet.settle()
        if (world.work()) continue
        const { migration, leftovers = [] } = world.context()
        if (!migration && leftovers.length === 0) return
        fleet.advance(61_000)
      }
      throw new Error(`no rest: ${JSON.stringify(world.context())}`)
    },
    state: () => fleet.record('vm', VM).state,
    context: () => fleet.record('vm', VM).snapshot.context as unknown as VmContext,
  }
  return world
}

export function migrate(world: World, params: Record<string, unknown> = {}, task_id = MIGRATION): void {
  const { server_uuid } = world.context()
  const target_server_uuid = server_uuid === SOURCE ? TARGET : SOURCE
  const order = { task_id, params: { target_server_uuid, token: TOKEN, ...params } }
  const reply = world.fleet.command('vm', VM, 'migrate', order)
  if (!('value' in reply) || (reply.value as { id: string }).id !== task_id) throw new Error(JSON.stringify(reply))
  world.fleet.settle()
}

interface Outcome {
  result?: Record<string, unknown>
  error?: { code: string; message: string }
}
const broken: Outcome = { error: { code: 'TaskFailed', message: 'it broke' } }
const refused = (code: string): Outcome => ({ error: { code, message: code } })

/** What an agent's task does, as hypervisor-agent/tasks/machine_migrate_*.ts do it. */
function perform(
  { task, server_uuid: here, params = {} }: TaskRecord,
  copies: Map<string, Copy>,
  nics: NicSpec[],
): Outcome {
  const copy = copies.get(here)
  const migration = String(params['migration'])
  const live = params['live'] === true
  switch (task) {
    case 'machine_migrate_examine':
      if (!copy) return refused('VmNotFound')
      if (live && !copy.running) return refused('VmNotRunning')
      return { result: { found: { spec: { ...specOf(VM), nics, autoboot: true } } } }
    case 'machine_migrate_receive':
      if (copy && copy.made_by !== migration) return refused('VmExists')
      copies.set(here, { running: false, held: false, complete: false, made_by: migration })
      return { result: { found: { stream: { host: '127.0.0.1', port: 1 } } } }
    case 'machine_shutdown':
      if (!copy) return refused('VmNotFound')
      copy.running = false
      return {}
    case 'machine_migrate_send':
      if (live && copy?.running) {
        Object.assign(copy, { running: false, paused: true, held: true })
        return { result: { found: { cookie: COOKIE } } }
      }
      if (!copy || copy.running || live) return refused('VmNotStopped')
      copy.held = true
      return { result: { found: { disks: [{ bytes: 1, sha256: 'b'.repeat(64) }] } } }
    case 'machine_migrate_adopt':
      if (copy?.made_by !== migration) return refused('VmNotFound')
      copy.complete = true
      return {}
    case 'machine_migrate_start':
      if (params['cookie'] !== undefined) {
        if (copy?.made_by !== migration || params['cookie'] !== COOKIE) return refused('MigrationInterrupted')
        Object.assign(copy, { running: true, complete: true })
        return { result: { found: { downtime_ms: 250 } } }
      }
      if (copy?.made_by !== migration || !copy.complete) return refused('VmNotFound')
      copy.running = true
      return {}
    case 'machine_migrate_finish':
      return copy ? {} : refused('VmNotFound')
    case 'machine_migrate_remove':
      if (copy?.held) copies.delete(here)
      return {}
    case 'machine_migrate_discard':
      if (copy?.made_by !== migration) return {}
      if (copy.running && params['unless_running'] === true) {
        copy.complete = true
        return { result: { found: { arrived: true } } }
      }
      copies.delete(here)
      return {}
    case 'machine_migrate_release':
      if (!copy) return refused('VmNotFound')
      copy.held = false
      copy.running ||= live ? copy.paused === true : params['start'] === true
      copy.paused = false
      return {}
    case 'machine_boot':
      if (!copy || copy.held || !copy.complete) return refused('VmBusy')
      copy.running = true
      return {}
    case 'machine_destroy':
      copies.delete(here)
      return {}
    default:
      throw new Error(`no such task in this world: ${task}`)
  }
}
