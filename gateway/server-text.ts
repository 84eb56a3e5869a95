/**
 * Servers as JSON text, kept while what they are made of has not changed: writing a server with its sysinfo and VMs costs many times what
 * sending it does. Values of a view are replaced, never changed, so the very same ones make the very same text.
 */
import type { Backend, Capacities, Server } from './backend.ts'
import { shownServer } from './shown-server.ts'
import { unreserved } from './unreserved.ts'

const all: ReadonlySet<string> = new Set(['all'])
const none: ReadonlySet<string> = new Set()

interface Kept {
  sysinfo: string | undefined
  status: unknown
  vms: unknown
  text: string
}

/** By the server as its view has it: what is no longer in the view is forgotten. */
const whole = new WeakMap<Server, Kept>()
const listed = new WeakMap<Server, string>()

/** Everything known of a server. Call after the barriers of servers, inventory and VMs. */
export function serverText(server: Server, left: Capacities, backend: Backend): string {
  const sysinfo = backend.inventory.sysinfoText(server.uuid)
  const status = backend.inventory.status(server.uuid)
  const vms = backend.vms.version(server.uuid)
  let kept = whole.get(server)
  if (!kept || kept.sysinfo !== sysinfo || kept.status !== status || kept.vms !== vms) {
    // Heartbeats come all the time, and what is left depends on more than this server: both are added each time.
    const { last_heartbeat: _, ...core } = shownServer(server, all, backend)
    kept = { sysinfo, status, vms, text: JSON.stringify(core).slice(0, -1) }
    whole.set(server, kept)
  }
  const heard = backend.lastHeartbeat(server.uuid)
  const last_heartbeat = heard === undefined ? null : new Date(heard).toISOString()
  return `${kept.text},${JSON.stringify({ last_heartbeat, ...unreserved(server.uuid, left) }).slice(1)}`
}

/** A server as a plain list shows it. Call after the barrier of servers. */
export function listedText(server: Server, backend: Backend): string {
  let text = listed.get(server)
  if (text === undefined) {
    text = JSON.stringify(shownServer(server, none, backend))
    listed.set(server, text)
  }
  return text
}
