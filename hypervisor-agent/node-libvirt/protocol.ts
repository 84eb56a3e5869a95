/**
 * The wire protocol as a table: what `protocol.json` holds, with its types. Everything that encodes, decodes or names
 * a procedure looks here; nothing else in the package knows a number.
 */
import table from './protocol.json' with { type: 'json' }
import type { Events, Procedures } from './protocol-types.ts'

/** A type's place on the wire: a primitive or a structure's name, or one of the combinations. */
export type Layout = string | ['opaque' | 'bytes', number] | ['list' | 'array', Layout, number] | ['optional', Layout]

/** A structure is its fields in order; a union is a tag and the layout for each tag. */
export type Type = [string, Layout][] | { cases: [number, Layout][] }

export interface ProtocolTable {
  source: string
  program: number
  version: number
  stringMax: number
  types: Record<string, Type>
  procedures: Record<string, { number: number; args: string | null; ret: string | null; event: string | null }>
}

export const protocol = table as unknown as ProtocolTable

/** A procedure that a client calls. */
export type ProcedureName = keyof Procedures
/** A message that the server sends by itself. */
export type EventName = keyof Events

const eventsByNumber = new Map(
  Object.entries(protocol.procedures)
    .filter(([, procedure]) => procedure.event)
    .map(([name, procedure]) => [procedure.number, { name: name as EventName, layout: procedure.event! }]),
)

/** The event that this procedure number announces, or undefined when this table is older than the server. */
export function eventByNumber(number: number): { name: EventName; layout: string } | undefined {
  return eventsByNumber.get(number)
}
