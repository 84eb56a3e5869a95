/** Settings of the installer's process: those it shares with the agent (hypervisor-agent/README.md). An empty value is no value. */
import * as v from 'valibot'
import { defaultInstallerDir } from './agents.ts'

export interface InstallerConfig {
  stateDir: string
  dir: string
  allowedHosts: string[]
  prefix: string
  service?: string
}

const absolute = v.pipe(v.string(), v.startsWith('/', 'must be absolute'))
const Settings = v.object({
  STATE_DIR: v.string('must name the state folder of the agent'),
  AGENT_INSTALL_DIR: v.optional(absolute, defaultInstallerDir),
  AGENT_INSTALL_ALLOW: v.optional(v.string(), ''),
  AGENT_PREFIX: v.optional(absolute, '/opt/muster-agents'),
  IMGAPI_URL: v.optional(v.pipe(v.string(), v.regex(/^https?:\/\/[^\s?#]+$/, 'must be an http or https URL'))),
})

/** Throws an Error with a line for each setting that is wrong. */
export function installerConfig(env: Readonly<Record<string, string | undefined>> = process.env): InstallerConfig {
  const given = Object.fromEntries(Object.entries(env).filter(([, value]) => value !== undefined && value !== ''))
  const read = v.safeParse(Settings, given)
  if (!read.success) {
    throw new Error(read.issues.map(issue => `${v.getDotPath(issue)}: ${issue.message}`).join('\n'))
  }
  const { STATE_DIR, AGENT_INSTALL_DIR, AGENT_INSTALL_ALLOW, AGENT_PREFIX, IMGAPI_URL } = read.output
  const hosts = AGENT_INSTALL_ALLOW.split(',').map(host => host.trim().toLowerCase())
  return {
    stateDir: STATE_DIR,
    dir: AGENT_INSTALL_DIR,
    allowedHosts: hosts.filter(Boolean),
    prefix: AGENT_PREFIX,
    ...(IMGAPI_URL ? { service: IMGAPI_URL.replace(/\/+$/, '') } : {}),
  }
}
