/** The agent's side of installing agents: hands orders to the installer, follows them, and knows what is installed. */
import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import * as v from 'valibot'
import { ERRORS, type ErrorCode } from '../../actors/contract/errors.ts'
import { pause } from '../abort.ts'
import { makeFolder, readIfThere, removeDurable, writeDurable } from '../durable-file.ts'
import { HypervisorError } from '../hypervisor.ts'
import { InstalledAgent, installedFile, type Order, ordersFolder, Progress, progressFolder } from './order.ts'

export interface Agents {
  /** Has it carried out. The same id again, also by an agent started anew, follows the same order. AgentInstallNotAllowed. */
  order(order: Order, doing: { signal: AbortSignal; progress(percent: number, step: string): void }): Promise<void>
  installed(): Promise<InstalledAgent[]>
}

/** Where the packaged installer keeps what it does. */
export const defaultInstallerDir = '/var/lib/muster-agent-install'

export interface AgentsOptions {
  stateDir: string
  /** The installer's folder. */
  installerDir: string
  /** Hosts that agents may come from; absent: none are installed. */
  allowedHosts?: readonly string[]
  /** Between two looks, and how long the installer may take to begin, ms. */
  lookEveryMs?: number
  beginsWithinMs?: number
}

export async function openAgents(options: AgentsOptions): Promise<Agents> {
  const { installerDir, allowedHosts, lookEveryMs = 500, beginsWithinMs = 60_000 } = options
  const orders = join(options.stateDir, ordersFolder)
  await makeFolder(orders)

  return {
    order: async (order, { signal, progress }) => {
      if (!allowedHosts) {
        const message = 'this server installs no agents: AGENT_INSTALL_ALLOW names the hosts they may come from'
        throw new HypervisorError('AgentInstallNotAllowed', message)
      }
      const file = join(orders, `${order.id}.json`)
      const told = () => read(join(installerDir, progressFolder, `${order.id}.json`), Progress)
      if (!(await told()) && !(await isThere(file))) await writeDurable(file, `${JSON.stringify(order, null, 2)}\n`)
      const givenUpAt = Date.now() + beginsWithinMs
      for (;;) {
        const now = await told()
        if (now?.state === 'ended') return ended(now)
        if (now) progress(now.percent, now.step)
        else if (Date.now() > givenUpAt) {
          await removeDurable(file)
          const message = 'nobody takes up what is to be installed: systemctl enable --now muster-agent-install.path'
          throw new HypervisorError('AgentInstallNotAllowed', message)
        }
        try {
          await pause(lookEveryMs, signal)
        } catch (error) {
          // Stopped with its agent it goes on; ended for another reason it must not begin any more.
          if (error instanceof HypervisorError) await removeDurable(file)
          throw error
        }
      }
    },
    installed: async () => (await read(join(installerDir, installedFile), v.array(InstalledAgent))) ?? [],
  }
}

function ended({ error }: Progress): void {
  if (!error) return
  const code = Object.hasOwn(ERRORS, error.code) ? (error.code as ErrorCode) : 'AgentInstallFailed'
  throw new HypervisorError(code, error.message)
}

/** A file that is absent, or that cannot be read as this, says nothing. */
async function read<S extends v.GenericSchema>(file: string, schema: S): Promise<v.InferOutput<S> | undefined> {
  const text = await readIfThere(file)
  if (text === undefined) return undefined
  try {
    const parsed = v.safeParse(schema, JSON.parse(text))
    return parsed.success ? parsed.output : undefined
  } catch {
    return undefined
  }
}

const isThere = (file: string) =>
  stat(file).then(
    () => true,
    () => false,
  )
