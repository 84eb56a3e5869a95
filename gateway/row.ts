/**
 * One row of the route table: everything about an endpoint in one value. Validation, gates, the OpenAPI document and the
 * tests' checklist are derived from it, so a new read endpoint is one row.
 */
import type * as v from 'valibot'
import type { ErrorCode, FieldError, Rejection } from '../actors/contract/errors.ts'
import type { Backend, Server, Vm } from './backend.ts'
import type { IdSource } from './ids.ts'

/**
 * What must hold before a handler runs, in this order (cnapi-behaviour §1.2): a known server, a well-formed VM id, a running
 * server, a known VM of that server; only then unknown and malformed parameters are looked at.
 * GV is GSV for a server that need not run. G0, GM and GMW look at nothing here: the store and the job runner are the actors themselves.
 */
export type Gate = 'G0' | 'GM' | 'GMW' | 'GL' | 'GS' | 'GSW' | 'GSR' | 'GSRW' | 'GSV' | 'GV'

/** What a gate has found for the handler. */
export type Found<G extends Gate> = G extends 'GSV' | 'GV'
  ? { server: Server; vm: Vm }
  : G extends 'GL' | 'GS' | 'GSW' | 'GSR' | 'GSRW'
    ? { server: Server }
    : unknown

export type Entries = Record<string, v.GenericSchema>

/** A request as a handler sees it. */
export type Incoming<E extends Entries = Entries, G extends Gate = Gate> = Found<G> & {
  /** Checked parameters: the ones the row names. */
  params: v.InferOutput<v.ObjectSchema<E, undefined>>
  /** All parameters as merged: path, then query, then body; the first wins. */
  all: Record<string, unknown>
  reqId: string
  /** Makes the ids of what this request creates; the same for a repeat with the same Idempotency-Key. */
  ids: IdSource
  /** The caller's Idempotency-Key with a digest of method, path and body. */
  key?: { value: string; fingerprint: string }
  /** The media type to answer with, out of the row's. */
  accepted: string
  /** Where a caller of an event stream stopped: its Last-Event-ID. */
  lastEventId?: string
  /** Aborted when the caller leaves. A function, because asking costs. */
  signal: () => AbortSignal
}

/** A handler's answer: a body (JSON unless `type` says otherwise), a stream, or a refusal with the status of its code. */
export type Answer =
  | { status: number; stream: ReadableStream<Uint8Array>; type: string; headers?: Record<string, string> }
  | { status: number; body?: unknown; type?: string; headers?: Record<string, string> }
  | { error: Rejection; status?: number; headers?: Record<string, string>; extra?: Record<string, unknown> }

export interface Row<E extends Entries = Entries, G extends Gate = Gate> {
  method: 'GET' | 'POST' | 'PUT' | 'DELETE'
  /** Hono's form, without a trailing slash. */
  path: string
  /** CNAPI's name of the endpoint, or ours: the OpenAPI operation id. */
  name: string
  summary: string
  /** Kept for clients that there are; new ones should not use it. */
  deprecated?: true
  gate: G
  /** Refuse parameters that are not in `params` or in the path with 409. */
  strict: boolean
  params: E
  /** Rules over several parameters, after the single ones hold. */
  check?: (params: v.InferOutput<v.ObjectSchema<E, undefined>>) => FieldError[]
  /** Status of invalid parameters where clients depend on 500 (cnapi-behaviour §1.4). */
  invalidStatus?: 500
  success: { status: number; description: string; body?: v.GenericSchema }
  /** Codes beyond those of the gate and of every route. */
  errors: readonly ErrorCode[]
  /** Longest body, where it is less than the gateway's own limit. */
  maxBodyBytes?: number
  /** Media types beside JSON and plain text. */
  types?: readonly string[]
  handle: (incoming: Incoming<E, G>, backend: Backend) => Answer | Promise<Answer>
}

/** A row whose own parameter types are forgotten: what the table holds. */
// biome-ignore lint/suspicious/noExplicitAny: a table of handlers with different parameters has no closer type
export type AnyRow = Row<any, any>

/** States a row; only fixes the types of its parameters. */
export function row<const E extends Entries, G extends Gate>(definition: Row<E, G>): AnyRow {
  return definition
}

/** Names in a path such as `/servers/:server_uuid`. */
export function pathParams(path: string): string[] {
  return [...path.matchAll(/:([a-z_]+)/g)].map(match => match[1]!)
}

/** Does the row change anything: such rows take an Idempotency-Key. */
export const changes = (row: { method: string }) => row.method !== 'GET'
