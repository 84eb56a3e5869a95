/** Checks a request's parameters against its row: unknown ones first where the row is strict, then each rule in the row's order. */
import * as v from 'valibot'
import { type FieldError, type Rejection, rejection } from '../actors/contract/errors.ts'
import { type AnyRow, type Entries, pathParams } from './row.ts'
import { notObject } from './rules.ts'

export type Checked = { params: Record<string, unknown> } | { error: Rejection; status?: number }

/** Makes the check of one row; the row's tables are looked at once, not for each request. */
export function checker(row: AnyRow): (all: Record<string, unknown>) => Checked {
  const known = new Set([...pathParams(row.path), ...Object.keys(row.params)])
  const rules = Object.entries(row.params as Entries)
  const invalid = (errors: FieldError[]): Checked => ({
    error: rejection('InvalidParameters', undefined, errors),
    ...(row.invalidStatus ? { status: row.invalidStatus } : {}),
  })
  return all => {
    if (row.strict) {
      for (const name in all) {
        if (!known.has(name)) {
          return { error: rejection('InvalidArgument', `${name} is not an explicitly defined parameter`) }
        }
      }
    }
    const params: Record<string, unknown> = {}
    const errors: FieldError[] = []
    for (const [name, schema] of rules) {
      const result = v.safeParse(schema, all[name])
      if (Array.isArray(all[name]) && isObject(schema)) {
        errors.push({ field: name, code: 'Invalid', message: notObject({ input: all[name] }) })
      } else if (result.success) {
        if (result.output !== undefined) params[name] = result.output
      } else {
        errors.push(...fieldErrors(name, result.issues))
      }
    }
    if (errors.length === 0 && row.check) errors.push(...row.check(params))
    return errors.length > 0 ? invalid(errors) : { params }
  }
}

/** Is this the rule of an object, perhaps an optional one. */
function isObject(schema: v.GenericSchema): boolean {
  if (schema.type === 'optional') return isObject((schema as unknown as { wrapped: v.GenericSchema }).wrapped)
  return ['object', 'loose_object', 'record'].includes(schema.type)
}

/** Most errors told of one request: a body may hold a thousand wrong disks. */
const ERRORS_MAX = 50

/** All that is wrong with one value, each with its path below `name`. */
export function fieldErrors(name: string, issues: readonly v.BaseIssue<unknown>[]): FieldError[] {
  return issues.slice(0, ERRORS_MAX).map(issue => fieldError(name, issue))
}

function fieldError(name: string, issue: v.BaseIssue<unknown>): FieldError {
  const path = v.getDotPath(issue)
  return { field: [name, path].filter(Boolean).join('.'), code: 'Invalid', message: issue.message }
}
