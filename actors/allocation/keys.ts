/** Attributes of a row that rules look at: rows with the same text are alike to a rule, so each such class is judged once a decision. */
import type { Row } from './row.ts'

export const KEYS = {
  setup: row => String(row.setup),
  status: row => row.status,
  system: row => `${row.muster} ${row.linux}`,
  problem: row => row.problem ?? '',
  virtual: row => String(row.virtual),
  encrypted: row => String(row.encrypted),
  reserved: row => String(row.reserved),
  tags: row => (row.tags ? JSON.stringify(Object.entries(row.tags).sort(([a], [b]) => (a < b ? -1 : 1))) : ''),
  platform: row => `${row.muster} ${row.platform.version} ${row.platform.live}`,
  traits: row => JSON.stringify(row.traits),
  headnode: row => String(row.headnode),
  ratios: row => JSON.stringify(row.ratios),
  unsizedFlight: row => row.unsizedFlight ?? '',
  caps: row => `${row.capped} ${row.capless}`,
  hvm: row => JSON.stringify(row.hvm),
  reservoir: row => String(row.reservoir),
} as const satisfies Record<string, (row: Row) => string>

export type Key = keyof typeof KEYS
