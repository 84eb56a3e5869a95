/** What a sysinfo changes in a server's record (cnapi-behaviour §2.1-2.2). */
import type { ServerContext, Sysinfo } from '../contract/server.ts'
import { iso } from '../effects.ts'

/** A server as it is before its first sysinfo. */
export function newServer(uuid: string): ServerContext {
  return {
    uuid,
    hostname: uuid,
    datacenter: '',
    created: iso(0),
    last_boot: null,
    boot_platform: '',
    boot_params: {},
    kernel_flags: {},
    current_platform: null,
    comments: '',
    default_console: 'serial',
    serial: 'ttyb',
    headnode: false,
    rack_identifier: '',
    ram: 0,
    reservation_ratio: 0.15,
    reserved: false,
    reservoir: false,
    setup: false,
    system_type: null,
    traits: {},
    agents: [],
    open: {},
  }
}

/**
 * Fields that follow a sysinfo. `Hostname` and `Zpool Creation` count on creation only; a sysinfo without `Setup` means not set up;
 * one without `Boot Parameters` leaves `headnode` alone; agents are taken only while none are known.
 */
export function fromSysinfo(
  context: ServerContext,
  sysinfo: Sysinfo,
  at: number,
  isNew: boolean,
): Partial<ServerContext> {
  const changes: Partial<ServerContext> = { setup: String(sysinfo.Setup) === 'true' }
  const memoryMib = Number.parseInt(String(sysinfo['MiB of Memory'] ?? ''), 10)
  if (Number.isFinite(memoryMib)) changes.ram = memoryMib
  const bootTime = Number(sysinfo['Boot Time'])
  if (sysinfo['Boot Time'] !== undefined && Number.isFinite(bootTime)) changes.last_boot = iso(bootTime * 1000)
  if (sysinfo['Live Image'] !== undefined) changes.current_platform = sysinfo['Live Image']
  if (sysinfo['System Type'] !== undefined) changes.system_type = sysinfo['System Type']
  if (sysinfo['Boot Parameters']) changes.headnode = sysinfo['Boot Parameters']['headnode'] === 'true'
  if (context.agents.length === 0 && sysinfo['SDC Agents']) {
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
  }
  return changes
}
