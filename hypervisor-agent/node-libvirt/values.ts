/** The wire's values in the object model's: UUIDs as text, 64-bit numbers as numbers, typed parameters as objects. */
import type { TypedParam } from './protocol-types.ts'

export function uuidText(bytes: Uint8Array): string {
  const hex = Buffer.from(bytes).toString('hex')
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-')
}

/** 16 bytes; throws TypeError for anything but a UUID. */
export function uuidBytes(text: string): Uint8Array {
  if (!/^[0-9a-f]{8}(-?[0-9a-f]{4}){3}-?[0-9a-f]{12}$/i.test(text)) throw new TypeError(`${text} is no UUID`)
  return Uint8Array.from(Buffer.from(text.replaceAll('-', ''), 'hex'))
}

/** Sizes and counters fit a number exactly up to 2^53 (8 PiB, or 104 days in nanoseconds) and closely beyond. */
export function plain(value: bigint): number {
  return Number(value)
}

export type ParameterValue = number | string | boolean

const booleanType = 6
const stringType = 7

export function parametersObject(parameters: TypedParam[]): Record<string, ParameterValue> {
  return Object.fromEntries(
    parameters.map(({ field, value }) => {
      if (typeof value.value === 'bigint') return [field, plain(value.value)]
      return [field, value.type === booleanType ? value.value !== 0 : value.value]
    }),
  )
}

/** Parameters that are texts, for the wire; those left out are not sent. */
export function textParameters(parameters: Record<string, string | undefined>): TypedParam[] {
  return Object.entries(parameters).flatMap(([field, value]) =>
    value === undefined ? [] : [{ field, value: { type: stringType, value } }],
  )
}
