/** What a sysinfo changes in a server's record (cnapi-behaviour §2.1-2.2). */
import type { BootFields } from '../contract/boot.ts'
import type { ServerContext, Sysinfo } from '../contract/server.ts'
import { iso } from '../effects.ts'

/**
 * Fields that follow a sysinfo. `Hostname` and `Zpool Creation` count on creation only; a sysinfo without `Setup` means not set up;
 * one without `Boot Parameters` leaves `headnode` alone; agents are taken only while none are known, from nodes of other makes. A new server boots with `defaults`,
 * and without a platform in them with what it runs.
 */
export function fromSysinfo(
  context: ServerContext,
  sysinfo: Sysinfo,
  at: number,
  isNew: boolean,
  defaults?: BootFields,
): Partial<ServerContext> {
  const changes: Partial<ServerContext> = { setup: String(sysinfo.Setup) === 'true' }
  const memoryMib = Number.parseInt(String(sysinfo['MiB of Memory'] ?? ''), 10)
  if (Number.isFinite(memoryMib)) changes.ram = memoryMib
  const bootTime = Number(sysinfo['Boot Time'])
  if (sysinfo['Boot Time'] !== undefined && Number.isFinite(bootTime)) changes.last_boot = iso(bootTime * 1000)
  // An agent that tells none must not leave that of another in place.
  if (sysinfo['Boot Id'] !== undefined || context.boot_id !== undefined) changes.boot_id = sysinfo['Boot Id']
  if (sysinfo['Live Image'] !== undefined) changes.current_platform = sysinfo['Live Image']
  if (sysinfo['System Type'] !== undefined) changes.system_type = sysinfo['System Type']
  if (sysinfo['Boot Parameters']) changes.headnode = sysinfo['Boot Parameters']['headnode'] === 'true'
  if ((context.agents.length === 0 || knowsItsAgents(sysinfo)) && sysinfo['SDC Agents']) {
    changes.agents = sysinfo['SDC Agents'].map(({ version, ...agent }) => ({
      ...agent,
      ...(version ? { version } : {}),
    }))
  }
  if (isNew) {
    const poolMade = Number(sysinfo['Zpool Creation'])
    changes.created =
      sysinfo['Zpool Creation'] !== undefined && Number.isFinite(poolMade) ? iso(poolMade * 1000) : iso(at)
    if (sysinfo.Hostname) changes.hostname = sysinfo.Hostname
    Object.assign(changes, bootOf(context, sysinfo, defaults))
  }
  return changes
}

/** Boot modules are for the first boot: they are not taken over (cnapi-behaviour §2.2). */
function bootOf(context: ServerContext, sysinfo: Sysinfo, defaults: BootFields | undefined): Partial<BootFields> {
  const boot_platform = defaults?.boot_platform || sysinfo['Live Image'] || ''
  if (!defaults) return { boot_platform }
  const { boot_params, kernel_flags, default_console, serial } = defaults
  return {
    boot_platform,
    boot_params: { ...context.boot_params, ...boot_params },
    kernel_flags,
    default_console: default_console || 'serial',
    serial: serial || 'ttyb',
  }
}

/** Muster's own agents tell all agents of their node each time; those of other makes post them to the server's record. */
function knowsItsAgents(sysinfo: Sysinfo): boolean {
  const versions = sysinfo['Versions'] as { agent?: unknown } | undefined
  return typeof versions?.agent === 'string'
}
