/** Valibot's issues as CNAPI's field errors: the dotted path of the field, and the rule it breaks. */
import type * as v from 'valibot'
import type { FieldError } from '../../actors/contract/errors.ts'

export function fieldErrors(issues: readonly v.BaseIssue<unknown>[]): FieldError[] {
  return issues.map(issue => ({
    field: issue.path?.map(item => String(item.key)).join('.') || '(params)',
    code: issue.input === undefined ? 'Missing' : 'Invalid',
    message: issue.message,
  }))
}
