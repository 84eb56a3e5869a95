/**
 * Boot parameters (cnapi-behaviour §6): what a boot server hands to a node, for each server and for those to come. PUT replaces all of
 * it, POST merges; names and shapes are the old service's, `kernel_values` and `boot_params` its other names for two of them.
 */
import * as v from 'valibot'
import { type BootChange, DEFAULTS_ID } from '../../actors/contract/boot.ts'
import { type Rejection, rejection } from '../../actors/contract/errors.ts'
import type { Backend, BootDefaults } from '../backend.ts'
import { bootModules } from '../boot-modules.ts'
import { serverNow } from '../gates.ts'
import { latestOf, platformsOf } from '../platforms.ts'
import { type Answer, type AnyRow, type Incoming, row } from '../row.ts'
import { object, trimmed } from '../rules.ts'
import { defaultServer } from '../shown-server.ts'

const bodyMaxBytes = 256 * 1024
const values = v.record(v.string(), v.unknown())
const shown = v.object({
  platform: v.optional(v.string()),
  kernel_args: values,
  kernel_flags: values,
  boot_modules: v.array(v.object({ path: v.string(), type: v.string(), content: v.string() })),
  default_console: v.optional(v.string()),
  serial: v.optional(v.string()),
})

const given = {
  platform: v.optional(trimmed),
  kernel_args: v.optional(object),
  kernel_flags: v.optional(object),
  boot_modules: v.optional(v.array(v.unknown(), 'value was not an array')),
}
const setParams = {
  ...given,
  default_console: v.optional(trimmed),
  serial: v.optional(trimmed),
  /** Names that the document and older clients use. */
  kernel_values: v.optional(object),
  boot_params: v.optional(object),
}
const updateParams = {
  ...given,
  default_console: v.optional(v.nullable(trimmed)),
  serial: v.optional(v.nullable(trimmed)),
  params: v.optional(object),
}

export const bootRows: AnyRow[] = [
  row({
    method: 'GET',
    path: '/boot/default',
    name: 'BootParamsGetDefault',
    summary: 'What a node boots with that is not registered yet, and what new servers begin with.',
    gate: 'G0',
    strict: false,
    params: {},
    success: { status: 200, description: 'Boot parameters; what is not chosen is left out', body: shown },
    errors: [],
    handle: async (_, backend) => ({ status: 200, body: shownBoot((await backend.bootDefaults()) ?? defaultServer) }),
  }),
  row({
    method: 'PUT',
    path: '/boot/default',
    name: 'BootParamsSetDefault',
    summary: 'Replaces the defaults: what is not given is gone.',
    gate: 'G0',
    strict: false,
    params: setParams,
    maxBodyBytes: bodyMaxBytes,
    success: { status: 204, description: 'Durable' },
    errors: ['InvalidArgument'],
    handle: (incoming, backend) => set(incoming, backend, DEFAULTS_ID, 204),
  }),
  row({
    method: 'POST',
    path: '/boot/default',
    name: 'BootParamsUpdateDefault',
    summary:
      'Merges into the defaults: what is not given stays, null removes an argument, a flag, the console or the serial.',
    gate: 'G0',
    strict: false,
    params: updateParams,
    maxBodyBytes: bodyMaxBytes,
    success: { status: 204, description: 'Durable' },
    errors: ['InvalidArgument'],
    handle: (incoming, backend) => update(incoming, backend, DEFAULTS_ID, 204),
  }),
  row({
    method: 'GET',
    path: '/boot/:server_uuid',
    name: 'BootParamsGet',
    summary:
      'All that a boot server needs of a server: platform, arguments with its hostname, flags, modules, console, serial.',
    gate: 'GS',
    strict: false,
    params: {},
    success: { status: 200, description: 'Boot parameters; what is not chosen is left out', body: shown },
    errors: [],
    handle: async ({ server }, backend) => {
      await backend.servers.barrier()
      const now = await serverNow(server, backend)
      if ('error' in now) return now
      const { hostname } = now
      const boot = shownBoot(now)
      return { status: 200, body: { ...boot, kernel_args: { ...boot.kernel_args, hostname } } }
    },
  }),
  row({
    method: 'PUT',
    path: '/boot/:server_uuid',
    name: 'BootParamsSet',
    summary:
      'Replaces the boot parameters of a server: what is not given is gone. Without `platform` it boots the latest that it has.',
    gate: 'GS',
    strict: false,
    params: setParams,
    maxBodyBytes: bodyMaxBytes,
    success: { status: 202, description: 'Durable' },
    errors: ['InvalidArgument'],
    handle: (incoming, backend) => set(incoming, backend, incoming.server.uuid, 202),
  }),
  row({
    method: 'POST',
    path: '/boot/:server_uuid',
    name: 'BootParamsUpdate',
    summary:
      'Merges into the boot parameters of a server: what is not given stays, null removes an argument, a flag, the console or the serial.',
    gate: 'GS',
    strict: false,
    params: updateParams,
    maxBodyBytes: bodyMaxBytes,
    success: { status: 202, description: 'Durable' },
    errors: ['InvalidArgument'],
    handle: (incoming, backend) => update(incoming, backend, incoming.server.uuid, 202),
  }),
]

/** A record's boot fields under the names that boot servers read; '' and nothing are the same to them. */
function shownBoot(fields: BootDefaults) {
  const { boot_platform, boot_params, kernel_flags, boot_modules = [], default_console, serial } = fields
  return {
    ...(boot_platform ? { platform: boot_platform } : {}),
    kernel_args: boot_params,
    kernel_flags,
    boot_modules,
    ...(default_console ? { default_console } : {}),
    ...(serial ? { serial } : {}),
  }
}

async function set(
  { params, key, reqId }: Incoming<typeof setParams>,
  backend: Backend,
  uuid: string,
  status: 202 | 204,
): Promise<Answer> {
  const { kernel_args = params.boot_params, kernel_flags = params.kernel_values, default_console, serial } = params
  const checked = await checkedChange(params, backend)
  if ('error' in checked) return checked
  const { platform = uuid === DEFAULTS_ID ? undefined : await latestFor(uuid, backend) } = checked.value
  const change = defined({ ...checked.value, platform, kernel_args, kernel_flags, default_console, serial })
  const outcome = await backend.call('cn', uuid, 'boot_set', change, { key, reqId })
  return 'error' in outcome ? outcome : { status }
}

async function update(
  { params, key, reqId }: Incoming<typeof updateParams>,
  backend: Backend,
  uuid: string,
  status: 202 | 204,
): Promise<Answer> {
  const { kernel_args = params.params, kernel_flags } = params
  const checked = await checkedChange(params, backend)
  if ('error' in checked) return checked
  // '' means nothing, and null means none.
  const [default_console, serial] = [params.default_console, params.serial].map(word =>
    word === null ? '' : word || undefined,
  )
  const change = defined({ ...checked.value, kernel_args, kernel_flags, default_console, serial })
  const outcome = await backend.call('cn', uuid, 'boot_update', change, { key, reqId })
  return 'error' in outcome ? outcome : { status }
}

/** The platform must be one that some node has; the modules must be such. */
async function checkedChange(
  { platform, boot_modules }: { platform?: string | undefined; boot_modules?: unknown[] | undefined },
  backend: Backend,
): Promise<{ value: Pick<BootChange, 'platform' | 'boot_modules'> } | { error: Rejection }> {
  if (platform !== undefined && !(await platformsOf(backend)).has(platform)) {
    return { error: rejection('InvalidArgument', `Platform '${platform}' does not exist`) }
  }
  const modules = boot_modules && bootModules(boot_modules)
  if (modules && 'error' in modules) return modules
  return { value: defined({ platform, boot_modules: modules?.value }) }
}

/** The newest of those that the server itself has told of: it can boot no other without help. */
async function latestFor(uuid: string, backend: Backend): Promise<string | undefined> {
  await backend.inventory.barrier()
  return latestOf(backend.inventory.platforms(uuid).map(({ name }) => name))
}

/** Only what is given: absent and undefined are not the same on the way to an actor. */
function defined<T extends Record<string, unknown>>(fields: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as never
}
