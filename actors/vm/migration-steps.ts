/** The steps of a migration as a table: which node does each, by which task, with what of the migration's record; and their order. */
import type { Migration, MigrationStep } from '../contract/migration.ts'
import type { TaskName } from '../contract/task.ts'
import type { VmContext } from '../contract/vm.ts'

interface Step {
  on: 'source' | 'target'
  task: TaskName
  /** What the caller's task shows when it begins. */
  percent: number
  params: (migration: Migration) => Record<string, unknown>
}

export const STEPS: Record<MigrationStep, Step> = {
  examine: { on: 'source', task: 'machine_migrate_examine', percent: 5, params: liveness },
  receive: {
    on: 'target',
    task: 'machine_migrate_receive',
    percent: 10,
    params: migration => ({ spec: migration.spec, token: migration.token, ...liveness(migration) }),
  },
  stop: { on: 'source', task: 'machine_shutdown', percent: 15, params: ({ stop }) => ({ ...stop, idempotent: true }) },
  send: {
    on: 'source',
    task: 'machine_migrate_send',
    percent: 20,
    params: migration => ({ ...migration.stream, token: migration.token, ...liveness(migration) }),
  },
  adopt: { on: 'target', task: 'machine_migrate_adopt', percent: 70, params: ({ disks }) => ({ disks }) },
  start: {
    on: 'target',
    task: 'machine_migrate_start',
    percent: 85,
    params: ({ cookie }) => (cookie === undefined ? {} : { cookie }),
  },
  finish: {
    on: 'target',
    task: 'machine_migrate_finish',
    percent: 90,
    params: ({ spec }) => ({ autoboot: spec?.['autoboot'] !== false }),
  },
  remove: { on: 'source', task: 'machine_migrate_remove', percent: 95, params: () => ({}) },
  discard: {
    on: 'target',
    task: 'machine_migrate_discard',
    percent: 97,
    params: ({ token, may_run_on_target, forced }) => ({
      token,
      ...(may_run_on_target && !forced ? { unless_running: true } : {}),
    }),
  },
  release: {
    on: 'source',
    task: 'machine_migrate_release',
    percent: 98,
    params: migration => ({ start: migration.ran && !migration.live, ...liveness(migration) }),
  },
}

const NOT_LIVE: readonly MigrationStep[] = ['stop', 'adopt']
const NOT_STOPPED: readonly MigrationStep[] = ['stop', 'start']
const FORWARD: readonly MigrationStep[] = ['examine', 'receive', 'stop', 'send', 'adopt', 'start', 'finish', 'remove']
/** From here on the VM is the target's. */
export const COMMITTED: readonly MigrationStep[] = ['finish', 'remove']
/** On the way back. */
export const UNDOING: readonly MigrationStep[] = ['discard', 'release']

/** The step after this one, when it has ended well. */
export function nextStep({ step, live, ran }: Migration): MigrationStep {
  const skipped = live ? NOT_LIVE : ran ? [] : NOT_STOPPED
  return FORWARD.slice(FORWARD.indexOf(step) + 1).find(next => !skipped.includes(next)) ?? 'remove'
}

/** The task of the step under way; undefined where none is. */
export const stepTask = ({ migration }: VmContext): TaskName | undefined =>
  migration ? STEPS[migration.step].task : undefined

function liveness({ live }: Migration) {
  return live ? { live } : {}
}
