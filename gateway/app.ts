/**
 * The HTTP side of every route: finds the row, reads parameters, passes its gate, checks them, runs its handler and turns the
 * answer into a response with CNAPI's conventions (cnapi-behaviour §1.1). The only place where errors become replies.
 */
import { randomUUID } from 'node:crypto'
import { type Context, Hono } from 'hono'
import type { Logger } from 'pino'
import { ERRORS, type Rejection, rejection } from '../actors/contract/errors.ts'
import { UnavailableError } from '../services/nats/records.ts'
import { JSON_TYPE, negotiate, TEXT_TYPE } from './accept.ts'
import type { Backend } from './backend.ts'
import { collect, readBody } from './body.ts'
import { pass } from './gates.ts'
import { derivedIds, fingerprint, randomIds } from './ids.ts'
import type { Observed } from './metrics.ts'
import { type Answer, type AnyRow, changes, type Incoming, pathParams } from './row.ts'
import { checker } from './validate.ts'

export interface AppOptions {
  rows: readonly AnyRow[]
  backend: Backend
  log: Pick<Logger, 'info' | 'debug' | 'error'>
  /** Shown in the Server header. */
  version: string
  /** Shown in x-server-name: the host this gateway runs on. */
  serverName: string
  /** Told of every request when it is answered. */
  observe?: (request: Observed) => void
}

/** The gateway as a function from request to response; listens to nothing by itself. */
export function createApp(options: AppOptions): Hono {
  const app = new Hono({ strict: false })
  const methods = methodsByPath(options.rows)
  for (const row of options.rows) app.on(row.method, row.path, serve(row, options, methods.get(row.path) ?? []))
  for (const [path, allowed] of methods) app.all(path, wrongMethod(allowed, options.observe))
  app.notFound(c => {
    options.observe?.({ ...seen(c), route: undefined, status: 404, ms: 0 })
    return plainError(
      rejection('ResourceNotFound', `${new URL(c.req.url, 'http://localhost').pathname} does not exist`),
    )
  })
  app.onError((error, c) => {
    options.log.error({ err: error, method: c.req.method, path: c.req.path }, 'request failed')
    return plainError(rejection('InternalError'))
  })
  return app
}

/** Longest request id that is passed on. */
const REQUEST_ID_MAX = 256
const KEY_MAX = 255

function serve(row: AnyRow, { backend, log, version, serverName, observe }: AppOptions, allowed: readonly string[]) {
  const check = checker(row)
  const names = pathParams(row.path)
  const changing = changes(row)
  const server = `muster/${version}`

  return async (c: Context): Promise<Response> => {
    // Hono serves HEAD by the row of GET; CNAPI's routes know no HEAD.
    if (c.req.method !== row.method) return wrongMethod(allowed, observe)(c)
    const started = performance.now()
    const header = (name: string) => c.req.header(name)
    const reqId = (header('request-id') || header('x-request-id') || randomUUID()).slice(0, REQUEST_ID_MAX)
    const accepted = negotiate(header('accept'), row.types)
    let answer: Answer
    try {
      answer = accepted ? await run(c, header, reqId, accepted) : { error: rejection('NotAcceptable') }
    } catch (error) {
      log.error({ err: error, req_id: reqId, route: row.name }, 'request failed')
      const away = error instanceof UnavailableError
      answer = { error: rejection(away ? 'ServiceUnavailableError' : 'InternalError') }
    }
    const tookMs = performance.now() - started
    const elapsedMs = Math.round(tookMs)
    const [status, body, type] = render(answer, accepted ?? JSON_TYPE)
    observe?.({ ...seen(c), route: row.name, status, ms: tookMs })
    const headers: Record<string, string> = {
      server,
      'x-request-id': reqId,
      'x-response-time': String(elapsedMs),
      'x-server-name': serverName,
      ...answer.headers,
    }
    if (body !== null) headers['content-type'] = type
    if (status === 503) headers['retry-after'] = '1'
    const fields = { req_id: reqId, route: row.name, path: c.req.path, status, ms: elapsedMs }
    if (changing && row.name !== 'ServerEventHeartbeat') log.info(fields, 'request')
    else log.debug(fields, 'request')
    return new Response(body, { status, headers })
  }

  async function run(
    c: Context,
    header: (name: string) => string | undefined,
    reqId: string,
    accepted: string,
  ): Promise<Answer> {
    const key = changing ? header('idempotency-key') : undefined
    if (key !== undefined && (key.length === 0 || key.length > KEY_MAX)) return badKey
    const body = changing ? await readBody(c.req.raw, header, row.maxBodyBytes) : undefined
    if (body && 'error' in body) return body
    const all = merge(c, names, body?.value)
    const found = await pass(row.gate, all, backend, key !== undefined)
    if ('error' in found) return found
    const checked = check(all)
    if ('error' in checked) return checked
    const lastEventId = header('last-event-id')
    const incoming = {
      ...found,
      params: checked.params,
      all,
      reqId,
      accepted,
      signal: () => c.req.raw.signal,
      ...(lastEventId === undefined ? {} : { lastEventId }),
      ...(key === undefined ? { ids: randomIds } : identity(row.method, key, c, body?.text ?? '')),
    } as Incoming
    return row.handle(incoming, backend)
  }
}

/** What a request with an Idempotency-Key is known by: the ids it makes, and the digest that tells a repeat from another request. */
function identity(method: string, key: string, c: Context, body: string): Pick<Incoming, 'ids' | 'key'> {
  const path = c.req.path.toLowerCase().replace(/\/$/, '')
  return {
    ids: derivedIds(key, `${method} ${path}`),
    key: { value: key, fingerprint: fingerprint(method, path + query(c.req.url), body) },
  }
}

const badKey: Answer = {
  error: rejection('InvalidParameters', undefined, [
    { field: 'Idempotency-Key', code: 'Invalid', message: `must have 1 to ${KEY_MAX} characters` },
  ]),
}

/** One flat map: path, then query, then body; the first wins. */
function merge(c: Context, names: string[], body: Record<string, unknown> | undefined): Record<string, unknown> {
  const all: Record<string, unknown> = Object.create(null)
  for (const name of names) all[name] = c.req.param(name)
  const search = query(c.req.url)
  if (search) {
    for (const [name, value] of Object.entries(collect(new URLSearchParams(search)))) all[name] ??= value
  }
  for (const name in body) if (!(name in all)) all[name] = body[name]
  return all
}

function query(url: string): string {
  const at = url.indexOf('?')
  return at < 0 ? '' : url.slice(at)
}

/** Status, body and media type of an answer; null is no body at all. */
function render(answer: Answer, accepted: string): [number, string | ReadableStream<Uint8Array> | null, string] {
  if ('stream' in answer) return [answer.status, answer.stream, answer.type]
  if ('error' in answer) {
    const { code, message, errors } = answer.error
    const status = answer.status ?? ERRORS[code].status
    if (accepted === TEXT_TYPE) return [status, message, TEXT_TYPE]
    return [status, JSON.stringify({ code, message, ...(errors ? { errors } : {}), ...answer.extra }), JSON_TYPE]
  }
  if (answer.body === undefined) return [answer.status, null, JSON_TYPE]
  if (answer.type) return [answer.status, String(answer.body), answer.type]
  return [answer.status, JSON.stringify(answer.body), accepted === TEXT_TYPE ? TEXT_TYPE : JSON_TYPE]
}

/** An error outside of any route: CNAPI adds no headers of its own there. */
function plainError(error: Rejection, headers: Record<string, string> = {}): Response {
  const text = JSON.stringify({ code: error.code, message: error.message })
  return new Response(text, { status: ERRORS[error.code].status, headers: { 'content-type': JSON_TYPE, ...headers } })
}

function wrongMethod(allowed: readonly string[], observe: AppOptions['observe']) {
  return (c: Context) => {
    observe?.({ ...seen(c), route: undefined, status: 405, ms: 0 })
    return plainError(rejection('MethodNotAllowedError', `${c.req.method} is not allowed`), {
      allow: allowed.join(', '),
    })
  }
}

const seen = (c: Context) => ({ method: c.req.method, userAgent: c.req.header('user-agent') })

function methodsByPath(rows: readonly AnyRow[]): Map<string, string[]> {
  const methods = new Map<string, string[]>()
  for (const { path, method } of rows) methods.set(path, [...(methods.get(path) ?? []), method])
  return methods
}
