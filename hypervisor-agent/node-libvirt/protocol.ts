/**
 * The wire protocol as a table: what `protocol.json` holds, with its types. Everything that encodes, decodes or names
 * a procedure looks here; nothing else in the package knows a number.
 */
import table from './protocol.json' with { type: 'json' }
import type { Events, Procedures as Generated, NonnullDomain } from './protocol-types.ts'

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

/** What is not in the table: of libvirt's program for QEMU alone (qemu_protocol.x) only this call is needed. */
const qemu = {
  program: 0x20008087,
  types: {
    domain_agent_command_args: [
      ['dom', 'nonnull_domain'],
      ['cmd', 'string'],
      ['timeout', 'int'],
      ['flags', 'uint'],
    ],
    domain_agent_command_ret: [['result', ['optional', 'string']]],
  } satisfies Record<string, Type>,
  procedures: {
    domain_agent_command: { number: 3, args: 'domain_agent_command_args', ret: 'domain_agent_command_ret' },
  },
} as const

/** The calls above with their types. */
interface QemuProcedures {
  domain_agent_command: {
    args: { dom: NonnullDomain; cmd: string; timeout: number; flags: number }
    ret: { result: string | null }
  }
}

const generated = table as unknown as ProtocolTable
export const protocol: ProtocolTable = { ...generated, types: { ...generated.types, ...(qemu.types as object) } }

/** Programs whose packets are understood; all have the same version. */
export const programs: readonly number[] = [protocol.program, qemu.program]

/** Where a call goes, and how it looks on the wire. */
export function procedureOf(name: ProcedureName): Wire {
  if (Object.hasOwn(qemu.procedures, name)) {
    return { program: qemu.program, ...qemu.procedures[name as keyof QemuProcedures] }
  }
  const found = protocol.procedures[name]
  if (!found) throw new TypeError(`libvirt has no procedure ${name}`)
  return { program: protocol.program, ...found }
}

interface Wire {
  program: number
  number: number
  args: string | null
  ret: string | null
}

/** Everything that a client calls. */
export type Procedures = Generated & QemuProcedures
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
