/** Changes of a server's record by its operators: attributes (ServerUpdate) and boot parameters. */
import { BOOT_MAX_LENGTH, DEFAULTS_ID } from '../contract/boot.ts'
import { type Rejection, rejection } from '../contract/errors.ts'
import type { ServerContext } from '../contract/server.ts'
import type { VerbParams } from '../contract/verbs.ts'
import type { Effect, Stamp } from '../effects.ts'
import { type BootEvent, bootSet, bootUpdated } from './boot.ts'

export type RecordEvent = (Stamp & { type: 'update' } & VerbParams<'cn', 'update'>) | BootEvent

/** The fields that an event gives another value; none for one that says what is so already. */
export function changesOf(context: ServerContext, event: { type: string }): Partial<ServerContext> {
  const asked = askedBy(context, event as RecordEvent)
  const changed = Object.entries(asked).filter(
    ([field, value]) => !isSame(context[field as keyof ServerContext], value),
  )
  return Object.fromEntries(changed)
}

export const isChange = (context: ServerContext, event: { type: string }): boolean =>
  Object.keys(changesOf(context, event)).length > 0

/** The record of the boot defaults is no server: it has no sysinfo, no tasks and no attributes. */
export const isServer = (context: ServerContext): boolean => context.uuid !== DEFAULTS_ID

/** Would its boot parameters become more than a record should hold. */
export function isTooLong(context: ServerContext, event: { type: string }): boolean {
  const { boot_params, kernel_flags, boot_modules } = { ...context, ...changesOf(context, event) }
  return JSON.stringify([boot_params, kernel_flags, boot_modules ?? []]).length > BOOT_MAX_LENGTH
}

const tooLong: Rejection = rejection(
  'InvalidArgument',
  `kernel_args, kernel_flags and boot_modules may have ${BOOT_MAX_LENGTH} characters together`,
)
export const refuseTooLong = (): Effect[] => [{ type: 'reject', rejection: tooLong }]

function askedBy(context: ServerContext, event: RecordEvent): Partial<ServerContext> {
  const { at: _at, req_id: _req_id, type: _type, ...change } = event
  switch (event.type) {
    case 'boot_set':
      return bootSet(event)
    case 'boot_update':
      return bootUpdated(context, event)
    case 'update':
      return change as Partial<ServerContext>
  }
}

/** By value: records hold what JSON holds. */
const isSame = (known: unknown, value: unknown): boolean => JSON.stringify(known) === JSON.stringify(value)
