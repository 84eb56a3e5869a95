/**
 * What systemd is told: ready, what the agent is doing, and that it is alive. Node has no datagram sockets of that kind, so
 * systemd-notify sends it. Outside of systemd all of this does nothing.
 */
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import type { Log } from './log.ts'

export interface ServiceManager {
  ready(status: string): Promise<void>
  status(text: string): Promise<void>
  stopping(): Promise<void>
  /** Tells the watchdog regularly that the agent lives, while `isAlive` says so in time. Returns how to stop. */
  watch(isAlive: () => Promise<boolean>): () => void
}

export interface ServiceManagerOptions {
  notifySocket?: string
  watchdogMs?: number
  log: Log
  /** Sends; tests put their own here. */
  send?: (args: string[]) => Promise<unknown>
}

const run = promisify(execFile)

export function serviceManager({ notifySocket, watchdogMs, log, send }: ServiceManagerOptions): ServiceManager {
  const how = send ?? ((args: string[]) => run('systemd-notify', args, { timeout: 5_000 }))
  const notify = async (...args: string[]) => {
    if (notifySocket === undefined) return
    await how(args).catch(error => log.warn({ err: error, args }, 'systemd cannot be told'))
  }
  return {
    ready: status => notify('--ready', `--status=${status}`),
    status: text => notify(`--status=${text}`),
    stopping: () => notify('STOPPING=1'),
    watch: isAlive => {
      if (notifySocket === undefined || watchdogMs === undefined) return () => {}
      let isBusy = false
      const beat = async () => {
        if (isBusy) return
        isBusy = true
        try {
          if (await isAlive()) await notify('WATCHDOG=1')
        } finally {
          isBusy = false
        }
      }
      // A check that hangs keeps the watchdog hungry, which is what it is for.
      const timer = setInterval(() => void beat().catch(() => {}), watchdogMs / 3)
      return () => clearInterval(timer)
    },
  }
}
