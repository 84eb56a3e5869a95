/**
 * Writes ../protocol.json, ../protocol-types.ts and ../codes.ts from an unpacked libvirt source tree: the names,
 * numbers and layouts of its wire protocol, which libvirt calls a long-term stable ABI (docs/support.rst).
 * The .x file itself is not kept here. Usage: node --import tsx scripts/generate-protocol.ts <source tree> <version>
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Layout, ProtocolTable } from '../protocol.ts'

const [tree, release] = process.argv.slice(2)
if (!tree || !release) {
  console.error('usage: generate-protocol.ts <libvirt source tree> <version>')
  process.exit(2)
}
const source = readFileSync(join(tree, 'src/remote/remote_protocol.x'), 'utf8')
  .replace(/\/\*[\s\S]*?\*\//g, '')
  .replace(/^%.*$/gm, '')
const errors = readFileSync(join(tree, 'include/libvirt/virterror.h'), 'utf8')

// Values that the .x file takes from libvirt's C headers.
const constants = new Map<string, number>([
  ['VIR_UUID_BUFLEN', 16],
  ['VIR_SECURITY_MODEL_BUFLEN', 257],
  ['VIR_SECURITY_LABEL_BUFLEN', 4097],
  ['VIR_SECURITY_DOI_BUFLEN', 257],
  ['VIR_TYPED_PARAM_INT', 1],
  ['VIR_TYPED_PARAM_UINT', 2],
  ['VIR_TYPED_PARAM_LLONG', 3],
  ['VIR_TYPED_PARAM_ULLONG', 4],
  ['VIR_TYPED_PARAM_DOUBLE', 5],
  ['VIR_TYPED_PARAM_BOOLEAN', 6],
  ['VIR_TYPED_PARAM_STRING', 7],
])
for (const [, name, value] of source.matchAll(/const\s+(\w+)\s*=\s*(\w+)\s*;/g)) constants.set(name!, numberOf(value!))

const primitives: Record<string, Layout> = {
  int: 'int',
  'unsigned int': 'uint',
  unsigned: 'uint',
  hyper: 'hyper',
  'unsigned hyper': 'uhyper',
  double: 'double',
  // Smaller C integers still take four bytes in XDR.
  char: 'int',
  'unsigned char': 'uint',
  'unsigned short': 'uint',
}

const typedefs = new Map<string, Layout>()
for (const [, name] of source.matchAll(/enum\s+(\w+)\s*\{/g)) typedefs.set(short(name!), 'int')
const types: ProtocolTable['types'] = {}
const statements =
  /typedef\s+([^;]+);|struct\s+(\w+)\s*\{([^}]*)\}\s*;|union\s+(\w+)\s+switch\s*\(\s*int\s+\w+\s*\)\s*\{([^}]*)\}\s*;/g
for (const [, typedef, struct, fields, union, cases] of source.matchAll(statements)) {
  if (typedef) {
    const [name, layout] = declaration(typedef)
    typedefs.set(name, layout)
  } else if (struct) {
    types[short(struct)] = declarations(fields!)
  } else if (union) {
    const arms = [...cases!.matchAll(/case\s+(\w+)\s*:\s*([^;]+);/g)]
    types[short(union)] = { cases: arms.map(([, tag, arm]) => [numberOf(tag!), declaration(arm!)[1]]) }
  }
}

const procedures: ProtocolTable['procedures'] = {}
for (const [, name, number] of source.matchAll(/REMOTE_PROC_(\w+)\s*=\s*(\d+)/g)) {
  const word = name!.toLowerCase()
  const part = (suffix: string) => (`${word}_${suffix}` in types ? `${word}_${suffix}` : null)
  procedures[word] = { number: Number(number), args: part('args'), ret: part('ret'), event: part('msg') }
}

const table: ProtocolTable = {
  source: `libvirt ${release}`,
  program: numberOf(/REMOTE_PROGRAM\s*=\s*(\w+)/.exec(source)![1]!),
  version: numberOf(/REMOTE_PROTOCOL_VERSION\s*=\s*(\w+)/.exec(source)![1]!),
  stringMax: numberOf('REMOTE_STRING_MAX'),
  types,
  procedures,
}
const here = join(import.meta.dirname, '..')
writeFileSync(join(here, 'protocol.json'), `${compact(table)}\n`)
writeFileSync(join(here, 'protocol-types.ts'), typesFile())
writeFileSync(join(here, 'codes.ts'), codesFile())
console.log(`${Object.keys(procedures).length} procedures, ${Object.keys(types).length} types`)

/** `unsigned hyper offset`, `remote_string *name`, `opaque cookie<MAX>`, `char model[32]` -> [field name, layout]. */
function declaration(text: string): [string, Layout] {
  const match = /^([\w\s]+?)\s*(\*?)\s*(\w+)\s*(?:([[<])\s*(\w*)\s*[\]>])?$/.exec(text.trim())
  if (!match) throw new Error(`cannot read declaration "${text}"`)
  const [, rawType, pointer, name, bracket, size] = match
  const type = rawType!.replace(/\s+/g, ' ')
  const bound = size ? numberOf(size) : 0xffffffff
  if (type === 'opaque') return [short(name!), bracket === '[' ? ['opaque', bound] : ['bytes', bound]]
  if (type === 'string') return [short(name!), 'string']
  const base = layoutOf(type)
  if (bracket === '[') return [short(name!), ['array', base, bound]]
  if (bracket === '<') return [short(name!), ['list', base, bound]]
  return [short(name!), pointer ? ['optional', base] : base]
}

function declarations(text: string): [string, Layout][] {
  return text
    .split(';')
    .filter(line => line.trim())
    .map(line => {
      const [field, layout] = declaration(line)
      return [field, layout]
    })
}

function layoutOf(type: string): Layout {
  const layout = primitives[type] ?? typedefs.get(short(type)) ?? short(type)
  if (typeof layout === 'string' && !(layout in types) && !['string', ...Object.values(primitives)].includes(layout)) {
    throw new Error(`unknown type ${type}`)
  }
  return layout
}

function short(name: string): string {
  return name.replace(/^remote_/, '')
}

function numberOf(text: string): number {
  const value = /^\d|^0x/.test(text) ? Number(text) : constants.get(text)
  if (value === undefined || Number.isNaN(value)) throw new Error(`unknown constant ${text}`)
  return value
}

/** One line per type and procedure, so that a newer table gives a diff that can be read. */
function compact(whole: ProtocolTable): string {
  const block = (entries: object) =>
    `{\n${Object.entries(entries)
      .map(([key, value]) => `    ${JSON.stringify(key)}: ${JSON.stringify(value)}`)
      .join(',\n')}\n  }`
  const head = Object.entries(whole).map(([key, value]) =>
    typeof value === 'object' ? `  "${key}": ${block(value)}` : `  "${key}": ${JSON.stringify(value)}`,
  )
  return `{\n${head.join(',\n')}\n}`
}

function typesFile(): string {
  const lines = [
    '/**',
    ` * Generated by scripts/generate-protocol.ts from ${table.source}; do not edit. One interface per wire structure, and`,
    ' * `Procedures` and `Events`, which give `call(procedure, args)` and the events their types.',
    ' */',
  ]
  for (const [name, layout] of Object.entries(types)) {
    if (Array.isArray(layout)) {
      if (layout.length === 0) {
        lines.push('', `export type ${camel(name)} = Record<string, never>`)
        continue
      }
      lines.push('', `export interface ${camel(name)} {`)
      for (const [field, type] of layout) lines.push(`  ${field}: ${typeScript(type)}`)
      lines.push('}')
    } else {
      lines.push('', `export type ${camel(name)} =`)
      for (const [tag, type] of layout.cases) lines.push(`  | { type: ${tag}; value: ${typeScript(type)} }`)
    }
  }
  lines.push('', 'export interface Procedures {')
  for (const [name, { args, ret, event }] of Object.entries(procedures)) {
    if (event) continue
    lines.push(`  ${name}: { args: ${args ? camel(args) : 'undefined'}; ret: ${ret ? camel(ret) : 'undefined'} }`)
  }
  lines.push('}', '', 'export interface Events {')
  for (const [name, { event }] of Object.entries(procedures)) if (event) lines.push(`  ${name}: ${camel(event)}`)
  lines.push('}', '')
  return lines.join('\n')
}

function typeScript(layout: Layout): string {
  if (typeof layout === 'string') {
    const plain: Record<string, string> = {
      int: 'number',
      uint: 'number',
      double: 'number',
      hyper: 'bigint',
      uhyper: 'bigint',
      string: 'string',
    }
    return plain[layout] ?? camel(layout)
  }
  if (layout[0] === 'opaque' || layout[0] === 'bytes') return 'Uint8Array'
  const inner = typeScript(layout[1] as Layout)
  return layout[0] === 'optional' ? `${inner} | null` : `${inner}[]`
}

function camel(name: string): string {
  return name.replace(/(?:^|_)(\w)/g, (_, letter: string) => letter.toUpperCase())
}

function codesFile(): string {
  const rows = (enumName: string, prefix: string) => {
    const body = new RegExp(`typedef enum \\{([^}]*)\\} ${enumName};`)
      .exec(errors)![1]!
      .replace(/\/\*[\s\S]*?\*\//g, '')
    return [...body.matchAll(new RegExp(`${prefix}(\\w+) = (\\d+)`, 'g'))]
      .map(row => `  ${row[1]}: ${row[2]},`)
      .join('\n')
  }
  return `/** Generated by scripts/generate-protocol.ts from ${table.source}; do not edit. Names of libvirt's error codes and domains. */

/** What went wrong (virErrorNumber, without the prefix VIR_ERR_). */
export const ERROR_CODES = {
${rows('virErrorNumber', 'VIR_ERR_')}
} as const

/** Which part of libvirt said so (virErrorDomain, without the prefix VIR_FROM_). */
export const ERROR_DOMAINS = {
${rows('virErrorDomain', 'VIR_FROM_')}
} as const
`
}
