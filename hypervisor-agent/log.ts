/** The agent's log: JSON lines on stdout, ids as fields. */
import { type Logger, pino } from 'pino'

export type Log = Pick<Logger, 'debug' | 'info' | 'warn' | 'error'>

/** A log whose lines carry these fields. */
export function openLog(level: string, fields: Record<string, unknown> = {}): Logger {
  return pino({ level, base: { service: 'hypervisor-agent', ...fields } })
}
