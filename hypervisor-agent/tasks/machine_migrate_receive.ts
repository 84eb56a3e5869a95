/**
 * Makes room for a VM that comes from another node: a definition that nobody can start, empty volumes, and the stream that fills them, or
 * that of a guest that comes running.
 * An agent that stops loses the stream; then the migration is taken back.
 */
import type { TaskHandler } from './task.ts'

export const machine_migrate_receive: TaskHandler<'machine_migrate_receive'> = {
  run: async (context, { uuid, migration, spec, token, live }) => {
    context.progress(20, 'define')
    await context.hypervisor.defineVm({ ...spec, autoboot: false }, { taskId: migration, incoming: true })
    context.progress(80, 'open_stream')
    const wanted = { uuid, disks: spec.disks.length, token }
    const { receptions } = context
    return { found: { stream: await (live ? receptions.expectLive(wanted) : receptions.expect(wanted)) } }
  },
}
