/** The OpenAPI 3.1 document, derived from the route table: nothing in it is written twice. */
import { type ConversionConfig, toJsonSchema } from '@valibot/to-json-schema'
import * as v from 'valibot'
import { ERRORS, type ErrorCode } from '../actors/contract/errors.ts'
import { gateErrors } from './gates.ts'
import { type AnyRow, changes, type Entries, pathParams, row } from './row.ts'

/** `GET /openapi.json` for these rows and itself. */
export function openApiRow(rows: AnyRow[], version: string): AnyRow {
  const self: AnyRow = row({
    method: 'GET',
    path: '/openapi.json',
    name: 'OpenApi',
    summary: 'This document.',
    gate: 'G0',
    strict: false,
    params: {},
    success: { status: 200, description: 'OpenAPI 3.1', body: v.looseObject({ openapi: v.string() }) },
    errors: [],
    handle: () => {
      document ??= openApi([...rows, self], version)
      return { status: 200, body: document }
    },
  })
  let document: object | undefined
  return self
}

/** The document of a table of rows. */
export function openApi(rows: readonly AnyRow[], version: string) {
  const paths: Record<string, Record<string, unknown>> = {}
  for (const row of rows) {
    const path = row.path.replace(/:([a-z_]+)/g, '{$1}')
    paths[path] = { ...paths[path], [row.method.toLowerCase()]: operation(row) }
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'Muster',
      version,
      description:
        'Control plane of a fleet of hypervisors: the compute node API and the compute agent\u2019s API. Parameters are read from path, query and body together; the first wins.',
      license: { name: 'MPL-2.0', identifier: 'MPL-2.0' },
    },
    paths,
    components: { schemas: { Error: errorSchema } },
  }
}

/** Codes that any row may answer, and any row that changes something. */
const common: readonly ErrorCode[] = ['NotAcceptable', 'ServiceUnavailableError', 'InternalError']
const ofChanges: readonly ErrorCode[] = [
  'InvalidContent',
  'UnsupportedMediaType',
  'PayloadTooLarge',
  'IdempotencyKeyReused',
  'InvalidParameters',
]

/** Every code a row may answer, without repeats. */
export function errorsOf(row: AnyRow): ErrorCode[] {
  const own: ErrorCode[] = [
    ...gateErrors(row.gate),
    ...(row.strict ? (['InvalidArgument'] as const) : []),
    ...(Object.keys(row.params).length > 0 ? (['InvalidParameters'] as const) : []),
    ...row.errors,
  ]
  return [...new Set([...own, ...(changes(row) ? ofChanges : []), ...common])]
}

function operation(row: AnyRow) {
  const inPath = pathParams(row.path)
  const entries = Object.entries(row.params as Entries).filter(([name]) => !inPath.includes(name))
  const inBody = changes(row) && row.method !== 'DELETE'
  return {
    operationId: row.name,
    summary: row.summary,
    ...(row.deprecated ? { deprecated: true } : {}),
    tags: [row.path.split('/')[1] || 'service'],
    parameters: [
      ...inPath.map(name => ({ name, in: 'path', required: true, schema: schemaOf(row.params[name] ?? v.string()) })),
      ...(inBody ? [] : entries.map(([name, schema]) => queryParameter(name, schema))),
      ...(changes(row) ? [idempotencyKey] : []),
    ],
    ...(inBody && entries.length > 0 ? { requestBody: requestBody(Object.fromEntries(entries)) } : {}),
    responses: {
      [row.success.status]: {
        description: row.success.description,
        ...(row.success.body ? { content: { 'application/json': { schema: schemaOf(row.success.body) } } } : {}),
      },
      ...errorResponses(row),
    },
  }
}

function queryParameter(name: string, schema: v.GenericSchema) {
  return { name, in: 'query', required: !isOptional(schema), schema: schemaOf(schema) }
}

const idempotencyKey = {
  name: 'Idempotency-Key',
  in: 'header',
  required: false,
  description: 'A repeat with the same key is answered as the first was, and done once; 422 if it is another request.',
  schema: { type: 'string', minLength: 1, maxLength: 255 },
}

function requestBody(entries: Entries) {
  const schema = schemaOf(v.looseObject(entries))
  return {
    required: Object.values(entries).some(entry => !isOptional(entry)),
    content: { 'application/json': { schema }, 'application/x-www-form-urlencoded': { schema } },
  }
}

/** One response a status; its codes are told in the description. */
function errorResponses(row: AnyRow): Record<string, unknown> {
  const byStatus = new Map<number, ErrorCode[]>()
  for (const code of errorsOf(row)) {
    const status = code === 'InvalidParameters' ? (row.invalidStatus ?? 400) : ERRORS[code].status
    byStatus.set(status, [...(byStatus.get(status) ?? []), code])
  }
  const content = { 'application/json': { schema: { $ref: '#/components/schemas/Error' } } }
  return Object.fromEntries(
    [...byStatus].map(([status, codes]) => [
      status,
      { description: codes.map(code => `${code}: ${ERRORS[code].text}`).join('. '), content },
    ]),
  )
}

const isOptional = (schema: v.GenericSchema) => schema.type === 'optional'

const config: ConversionConfig = {
  target: 'draft-2020-12',
  typeMode: 'input',
  errorMode: 'ignore',
  ignoreActions: ['check', 'raw_check', 'to_lower_case'],
}

function schemaOf(schema: v.GenericSchema): object {
  const { $schema: _, ...converted } = toJsonSchema(schema, config)
  return converted
}

const errorSchema = {
  type: 'object',
  required: ['code', 'message'],
  properties: {
    code: { type: 'string', enum: Object.keys(ERRORS) },
    message: { type: 'string' },
    errors: {
      type: 'array',
      items: {
        type: 'object',
        required: ['field', 'code', 'message'],
        properties: { field: { type: 'string' }, code: { type: 'string' }, message: { type: 'string' } },
      },
    },
  },
}
