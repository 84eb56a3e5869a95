/**
 * A node with its agent. Where the host can lose its power without this process (a simulated one), the agent goes with it and is
 * started again when it is back, over the same state folder, as systemd does on a real host.
 */
import { type Agent, type AgentOptions, startAgent } from './agent.ts'
import type { Link } from './link.ts'

export interface NodeOptions extends Omit<AgentOptions, 'link'> {
  /** A new link for each start of the agent. */
  openLink: () => Link
}

/** Starts the agent; `stop` ends it for good. */
export async function startNode({ openLink, ...options }: NodeOptions): Promise<Agent> {
  const start = () => startAgent({ ...options, link: openLink() })
  let agent: Agent | undefined = await start()
  let isStopping = false
  /** Starts and stops, one after the other. */
  let last: Promise<void> = Promise.resolve()
  const next = (step: () => Promise<void>) => {
    last = last.then(step).catch(error => options.log.error({ err: error }, 'the agent does not follow its host'))
    return last
  }
  const off = async () => {
    const stopped = agent
    agent = undefined
    await stopped?.stop()
  }
  const on = async () => {
    if (!isStopping) agent ??= await start()
  }
  const unheard = options.tools.host.onPower?.(power => void next(power === 'off' ? off : on))
  return {
    stop: () => {
      isStopping = true
      unheard?.()
      return next(off)
    },
  }
}
