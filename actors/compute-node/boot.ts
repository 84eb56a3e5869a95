/** Boot parameters of a server or of the record `default`: replaced, or merged as the document has it (cnapi-behaviour §6.2, §11). */
import type { BootChange } from '../contract/boot.ts'
import type { ServerContext } from '../contract/server.ts'
import type { VerbParams } from '../contract/verbs.ts'
import type { Stamp } from '../effects.ts'

export type BootEvent = { [V in 'boot_set' | 'boot_update']: Stamp & { type: V } & VerbParams<'cn', V> }[
  | 'boot_set'
  | 'boot_update']

type BootPart = Partial<
  Pick<ServerContext, 'boot_platform' | 'boot_params' | 'kernel_flags' | 'boot_modules' | 'default_console' | 'serial'>
>

/** Everything anew: what the change does not say is gone. */
export function bootSet({ platform, kernel_args, kernel_flags, boot_modules, default_console, serial }: BootChange) {
  return {
    boot_platform: platform ?? '',
    boot_params: kernel_args ?? {},
    kernel_flags: kernel_flags ?? {},
    boot_modules: boot_modules ?? [],
    default_console: default_console ?? '',
    serial: serial ?? '',
  } satisfies BootPart
}

/** What the change does not say stays. Arguments and flags are merged, and null removes one; modules are replaced as a list. */
export function bootUpdated(context: ServerContext, change: BootChange): BootPart {
  const { platform, kernel_args, kernel_flags, boot_modules, default_console, serial } = change
  return {
    ...(platform === undefined ? {} : { boot_platform: platform }),
    ...(kernel_args ? { boot_params: merged(context.boot_params, kernel_args) } : {}),
    ...(kernel_flags ? { kernel_flags: merged(context.kernel_flags, kernel_flags) } : {}),
    ...(boot_modules ? { boot_modules } : {}),
    ...(default_console === undefined ? {} : { default_console }),
    ...(serial === undefined ? {} : { serial }),
  }
}

function merged(known: Record<string, unknown>, change: Record<string, unknown>): Record<string, unknown> {
  const gone = (name: string) => Object.hasOwn(change, name) && change[name] === null
  return Object.fromEntries(Object.entries({ ...known, ...change }).filter(([name]) => !gone(name)))
}
