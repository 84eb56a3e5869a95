/** The installer's process: reads its settings, carries out the orders there are, ends. Started as root by muster-agent-install.path. */
import { join } from 'node:path'
import * as v from 'valibot'
import { fetcher } from '../install/fetch.ts'
import { carryOutOrders } from './installer.ts'
import { ordersFolder } from './order.ts'
import { packages, runProgram } from './packages.ts'

/** The settings it shares with the agent (its README tells them); an empty value is no value. */
const Settings = v.object({
  STATE_DIR: v.string('STATE_DIR must name the agent\u2019s state folder'),
  AGENT_INSTALL_DIR: v.optional(v.string(), '/var/lib/muster-agent-install'),
  AGENT_INSTALL_ALLOW: v.optional(v.string(), ''),
  AGENT_PREFIX: v.optional(v.pipe(v.string(), v.startsWith('/', 'must be absolute')), '/opt/muster-agents'),
  IMGAPI_URL: v.optional(v.string()),
})

const given = Object.fromEntries(Object.entries(process.env).filter(([, value]) => value !== ''))
const settings = v.safeParse(Settings, given)
if (!settings.success) {
  console.error(settings.issues.map(({ message }) => message).join('\n'))
  process.exit(1)
}
const { STATE_DIR, AGENT_INSTALL_DIR, AGENT_INSTALL_ALLOW, AGENT_PREFIX, IMGAPI_URL } = settings.output
const hosts = AGENT_INSTALL_ALLOW.split(',').map(host => host.trim().toLowerCase())
const service = IMGAPI_URL?.replace(/\/+$/, '')
await carryOutOrders({
  ordersDir: join(STATE_DIR, ordersFolder),
  dir: AGENT_INSTALL_DIR,
  web: fetcher({ allowedHosts: hosts.filter(Boolean), setting: 'AGENT_INSTALL_ALLOW' }),
  packages: packages({ run: runProgram, prefix: AGENT_PREFIX }),
  log: line => console.log(line),
  ...(service ? { service } : {}),
})
