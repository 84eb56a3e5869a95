/**
 * Open vSwitch bridges of this host. ovsdb's socket is open to root alone unless it was given to the agent; without it the agent
 * sees only whether the bridges of its configuration exist as interfaces, and says so.
 */
import { execFile } from 'node:child_process'
import { readdir } from 'node:fs/promises'
import { promisify } from 'node:util'
import { portTables, readPorts } from './ports.ts'

export interface OpenVswitch {
  /** Names of the bridges. Never rejects. */
  bridges(): Promise<string[]>
  /** Interface -> the bridge that it is a port of. Empty where Open vSwitch does not say. Never rejects. */
  ports(): Promise<Record<string, string>>
  /** Undefined where Open vSwitch does not say. */
  version(): Promise<string | undefined>
}

export interface OpenVswitchOptions {
  /** Nic tag -> bridge. */
  nicTags: Readonly<Record<string, string>>
  /** Hears, once each, what an operator should know: why the list is incomplete, which nic tags lead nowhere. */
  note: (line: string) => void
  /** How the host is asked; tests put their own here. */
  sources?: BridgeSources
}

export interface BridgeSources {
  ovsVsctl(args: string[]): Promise<string>
  interfaces(): Promise<string[]>
}

/** An answer is good for this long, ms: an inventory is taken with every status event. */
const freshMs = 2_000

export function openVswitch({ nicTags, note, sources = host }: OpenVswitchOptions): OpenVswitch {
  const noted = new Set<string>()
  const say = (line: string) => {
    if (noted.has(line)) return
    noted.add(line)
    note(line)
  }
  let last: { at: number; bridges: Promise<string[]>; ports: Promise<Record<string, string>> } | undefined
  const now = () => {
    const at = performance.now()
    if (!last || at - last.at > freshMs)
      last = {
        at,
        bridges: read(),
        ports: sources
          .ovsVsctl(portTables)
          .then(readPorts)
          .catch(() => ({})),
      }
    return last
  }

  async function read(): Promise<string[]> {
    const names = await sources.ovsVsctl(['list-br']).then(
      text => text.split('\n').filter(Boolean),
      async error => {
        const interfaces = new Set(await sources.interfaces().catch(() => []))
        say(
          `Open vSwitch does not list its bridges (${reasonOf(error)}): those of NIC_TAGS that exist as interfaces are taken`,
        )
        return [...new Set(Object.values(nicTags))].filter(name => interfaces.has(name))
      },
    )
    for (const [tag, bridge] of Object.entries(nicTags)) {
      if (!names.includes(bridge))
        say(`nic tag ${tag} leads to bridge ${bridge}, which is not there: ovs-vsctl add-br ${bridge}`)
    }
    return names
  }

  return {
    bridges: () => now().bridges,
    ports: () => now().ports,
    version: () =>
      sources.ovsVsctl(['--version']).then(
        text => /\b(\d+\.\d+\.\d+)\b/.exec(text)?.[1],
        () => undefined,
      ),
  }
}

const run = promisify(execFile)
const host: BridgeSources = {
  ovsVsctl: async args => (await run('ovs-vsctl', ['--timeout=3', ...args], { timeout: 5_000 })).stdout,
  interfaces: () => readdir('/sys/class/net'),
}

function reasonOf(error: unknown): string {
  const { code, stderr, message } = error as { code?: unknown; stderr?: string; message?: string }
  if (code === 'ENOENT') return 'ovs-vsctl is not installed'
  return stderr?.trim().split('\n').at(-1) || String(message)
}
