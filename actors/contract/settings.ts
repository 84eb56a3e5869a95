/**
 * The settings that CNAPI documents (its tables "Configuration" and "SAPI Configuration"), each with the environment variable that stands
 * for it here. A config file in CNAPI's shape is read through this table, so that operators keep the file they have.
 */
import * as v from 'valibot'

/** Names of levels with bunyan's numbers; `silent` is ours. */
export const LOG_LEVELS = { trace: 10, debug: 20, info: 30, warn: 40, error: 50, fatal: 60, silent: 61 } as const
export type LogLevel = keyof typeof LOG_LEVELS

const names = Object.keys(LOG_LEVELS) as LogLevel[]
const levelMessage = `must be one of ${names.join(', ')}, or bunyan's number of one`

/** A level by its name or by bunyan's number, as text or number; gives the name. */
export const LogLevelName = v.pipe(
  v.union([v.string(), v.number()], levelMessage),
  v.transform(given => names.find(name => name === given || String(LOG_LEVELS[name]) === String(given)) ?? ''),
  v.picklist(names, levelMessage),
)

const url = v.pipe(v.string('must be a URL'), v.regex(/^(https?:\/\/)?[^\s/]+(\/\S*)?$/, 'must be a URL'))
const port = v.pipe(
  v.union([v.string(), v.number()], 'must be a port'),
  v.transform(Number),
  v.check(number => Number.isInteger(number) && number >= 0 && number <= 65_535, 'must be a port'),
)
const host = v.pipe(v.string('must be a host'), v.regex(/^[^\s/]+$/, 'must be a host'))
/** True or false, as a word of any case too: templates write words. */
export const BooleanWord = v.pipe(
  v.union([v.boolean(), v.string()], 'must be true or false'),
  v.transform(given => String(given).toLowerCase()),
  v.picklist(['true', 'false'], 'must be true or false'),
  v.transform(word => word === 'true'),
)

export interface DocumentedSetting {
  /** Place in a config file, or the SAPI key. */
  key: string
  env: string
  /** Holds for the value in a file and for the text in the environment; absent: the process that uses it checks. */
  schema?: v.GenericSchema
  /** Why it changes nothing here; absent where it does. */
  idle?: string
}

const nats = 'NATS takes the place of this service'
const itself = 'Muster does this itself'

export const DOCUMENTED_SETTINGS: readonly DocumentedSetting[] = [
  { key: 'logLevel', env: 'LOG_LEVEL' },
  { key: 'datacenter_name', env: 'DATACENTER_NAME' },
  {
    key: 'adminUuid',
    env: 'ADMIN_UUID',
    schema: v.string('must be a UUID'),
    idle: 'no VM is given an owner by itself',
  },
  { key: 'amqp.host', env: 'AMQP_HOST', schema: host, idle: nats },
  { key: 'moray.host', env: 'MORAY_HOST', schema: host, idle: nats },
  { key: 'moray.port', env: 'MORAY_PORT', schema: port, idle: nats },
  { key: 'api.port', env: 'PORT' },
  { key: 'wfapi.workflows', env: 'WFAPI_WORKFLOWS', idle: itself },
  { key: 'wfapi.url', env: 'WFAPI_URL', schema: url, idle: itself },
  { key: 'napi.url', env: 'NAPI_URL', schema: url, idle: 'nic tags are what nodes report' },
  { key: 'assets.url', env: 'ASSETS_URL', schema: url, idle: 'agents are installed from URLs that requests name' },
  { key: 'cnapi.url', env: 'CNAPI_URL', schema: url, idle: 'agents find Muster through NATS' },
  { key: 'imgapi.url', env: 'IMGAPI_URL', schema: url },
  { key: 'dapi.changeDefaults', env: 'ALLOC_CHANGE_DEFAULTS' },
  {
    key: 'dapi.allocationDescription',
    env: 'ALLOC_DESCRIPTION',
    idle: 'the stages of placement are fixed; their settings are not',
  },
  {
    key: 'FEATURE_USE_CNAGENT_COMMAND_EXECUTE',
    env: 'FEATURE_USE_CNAGENT_COMMAND_EXECUTE',
    schema: BooleanWord,
    idle: 'commands always go through the agent',
  },
  { key: 'SMT_ENABLED_DEFAULT', env: 'SMT_ENABLED_DEFAULT' },
]
