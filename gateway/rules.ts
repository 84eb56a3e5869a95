/**
 * The parameter rules of CNAPI with their wording (cnapi-behaviour §1.1): clients and their tests match on these texts.
 * Plain schemas, so that the OpenAPI document can be derived from them.
 */
import * as v from 'valibot'

export const text = v.string('value was not a string')

export const trimmed = v.pipe(text, v.regex(/^(\S([\s\S]*\S)?)?$/, 'value contains leading or trailing whitespace'))

export const notObject = (issue: { input: unknown }) =>
  `value is not an object. (was: ${Object.prototype.toString.call(issue.input)})`

/** An object with at least these members. The row's check refuses an array in its place, which valibot would take. */
export const objectOf = <E extends v.ObjectEntries>(entries: E) => v.looseObject(entries, notObject)

export const object = objectOf({})

const notNumber = 'value was not a number'
const numeral = v.pipe(v.string(), v.regex(/^\s*[-+]?(\d+\.?\d*|\.\d+)\s*$/, notNumber))

/** A number, or a string that is one: query strings know no other. */
export const number = v.pipe(v.union([v.number(), numeral], notNumber), v.transform(Number))

export const numberFromZero = v.pipe(number, v.minValue(0, 'value was not greater than or equal to zero'))

const notBoolean = "value was not 'true' or 'false'"

/** `true` or `false` in any case, or a real boolean. */
export const booleanWord = v.pipe(
  v.union([v.boolean(), v.pipe(v.string(), v.regex(/^(true|false)$/i, notBoolean))], notBoolean),
  v.transform(input => String(input).toLowerCase() === 'true'),
)

/** A string of a form; the message names the parameter. */
export const matching = (name: string, form: RegExp) => v.pipe(v.string(invalid(name)), v.regex(form, invalid(name)))

/** A comma list of words of that form. */
export const listMatching = (name: string, form: RegExp) =>
  v.pipe(
    matching(name, form),
    v.transform(input => input.split(',')),
  )

/** A whole number in a query string or a body. */
export const integer = (name: string) =>
  v.pipe(
    v.union(
      [v.pipe(v.number(), v.integer(invalid(name))), v.pipe(v.string(), v.regex(/^-?\d{1,15}$/, invalid(name)))],
      invalid(name),
    ),
    v.transform(Number),
  )

/** A UUID in any case, given back in lower case. */
export const uuid = v.pipe(
  v.string('value was not a string'),
  v.regex(/^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$/, 'value was not a UUID'),
  v.toLowerCase(),
)

function invalid(name: string): string {
  return `Invalid value for param '${name}'`
}
