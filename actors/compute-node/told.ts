/** What a node tells of itself beside its registration: sysinfos in the results of tasks, and that it is back from a reboot. */
import { isSysinfo, type ServerContext, type Sysinfo } from '../contract/server.ts'
import type { TaskName } from '../contract/task.ts'
import type { Effect } from '../effects.ts'
import type { ServerEvent } from './events.ts'
import { waitsForBoot } from './job-run.ts'
import { isOtherBoot } from './jobs.ts'
import { fromSysinfo } from './sysinfo.ts'
import { openTask } from './task-effects.ts'

/** Tasks that end with the node's inventory as it is after them. */
const TELLING: ReadonlySet<string> = new Set<TaskName>([
  'server_sysinfo',
  'server_update_nics',
  'agent_install',
  'agents_uninstall',
])

/** The record after a task that told a sysinfo, as if the node had registered with it. */
export function told(context: ServerContext, event: { type: string; at: number }): Partial<ServerContext> {
  const sysinfo = sysinfoIn(context, event)
  return sysinfo ? settled(context, fromSysinfo(context, sysinfo, event.at, false), { wasUnknown: false }) : {}
}

/** The inventory of a node that registers. */
export function keepSysinfo(context: ServerContext, event: ServerEvent): Effect[] {
  if (event.type !== 'register') return []
  const key = `${context.uuid}.sysinfo`
  return [
    { type: 'put', bucket: 'inventory', key, value: event.sysinfo },
    // That of an earlier life of its record was about to go.
    { type: 'cancel_timer', name: 'inventory' },
    { type: 'reply', value: {} },
  ]
}

export function keepTold(context: ServerContext, event: { type: string; at: number }): Effect[] {
  const value = sysinfoIn(context, event)
  return value ? [{ type: 'put', bucket: 'inventory', key: `${context.uuid}.sysinfo`, value }] : []
}

function sysinfoIn(context: ServerContext, event: { type: string }): Sysinfo | undefined {
  const { type, id, status, result } = event as { type: string; id?: string; status?: string; result?: unknown }
  if (type !== 'report' || status !== 'complete' || !TELLING.has(openTask(context, id ?? '')?.task ?? ''))
    return undefined
  const sysinfo = (result as { sysinfo?: unknown } | null | undefined)?.sysinfo
  return isSysinfo(sysinfo) && (sysinfo.UUID ?? context.uuid).toLowerCase() === context.uuid ? sysinfo : undefined
}

/**
 * These changes as they count, and the end of `rebooting` with them: the node is heard again, or tells another boot (cnapi-behaviour §2.2). A job
 * that waits for its boot ends it by itself, since the last beats before a reboot and the first after it are beats too.
 * What a node says of its setup does not count while a job sets it up, nor after one that failed: a pool alone is half a setup.
 */
export function settled(
  context: ServerContext,
  told: Partial<ServerContext>,
  { wasUnknown }: { wasUnknown: boolean },
): Partial<ServerContext> {
  const isHeld = context.setup_failed === true || context.job?.name === 'server-setup'
  const changes = isHeld && 'setup' in told ? { ...told, setup: context.setup } : told
  if (!context.transitional_status || waitsForBoot(context)) return changes
  const booted =
    isOtherBoot(context.boot_id, changes.boot_id) ||
    (changes.last_boot !== undefined && changes.last_boot !== context.last_boot)
  return wasUnknown || booted ? { ...changes, transitional_status: undefined } : changes
}
