/**
 * What the agent asks of the installer, and what that answers, each a file. The agent has no rights to install anything; the installer
 * runs as root, outside the agent's cgroup, so that it goes on while it replaces the agent. Whoever can write an order can have installed
 * what the allowed hosts offer, and nothing else: the installer fetches by its own configuration.
 */
import * as v from 'valibot'
import { ImageName, Uuid } from '../../actors/contract/ids.ts'
import { AgentName, agentSource } from '../../actors/contract/tasks/agents.ts'

export const Order = v.variant('kind', [
  v.object({ id: Uuid, kind: v.literal('install'), ...agentSource }),
  v.object({ id: Uuid, kind: v.literal('uninstall'), agents: v.array(AgentName) }),
])
export type Order = v.InferOutput<typeof Order>

/** The names of this agent: as a package, and as clients of CNAPI know it. It does not remove itself. */
export const ownNames: readonly string[] = ['muster-agent', 'cn-agent']

/** How far an order is. `error`: it ended so. */
export const Progress = v.object({
  state: v.picklist(['working', 'ended']),
  percent: v.number(),
  step: v.string(),
  /** ms since the epoch. */
  at: v.number(),
  error: v.optional(v.object({ code: v.string(), message: v.string() })),
})
export type Progress = v.InferOutput<typeof Progress>

/** An agent that the installer installed. */
export const InstalledAgent = v.object({
  name: AgentName,
  version: v.string(),
  kind: v.picklist(['deb', 'tarball']),
  image_uuid: v.optional(ImageName),
})
export type InstalledAgent = v.InferOutput<typeof InstalledAgent>

/** Folder of the agent's orders below its state folder: `<order id>.json`. */
export const ordersFolder = 'agent-orders'
/** Below the installer's own folder: `progress/<order id>.json`, and the list of what it installed. */
export const progressFolder = 'progress'
export const installedFile = 'agents.json'
