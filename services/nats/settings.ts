/**
 * Settings of a process before its own schema looks at them: a config file (JSON) under the environment, which wins. Stands in this
 * room because every process may import it. A file may have CNAPI's shape (`api.port`), our variables by their names (`NATS_URL`), or both.
 */
import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import * as v from 'valibot'
import { DOCUMENTED_SETTINGS, type DocumentedSetting } from '../../actors/contract/settings.ts'

type Env = Readonly<Record<string, string | undefined>>

/** Settings by their variables, none empty; what is wrong with the file; documented settings that were given and change nothing. */
export interface Given {
  env: Record<string, string>
  problems: string[]
  idle: { setting: string; because: string }[]
}

export interface Read<T> {
  settings: T
  idle: Given['idle']
}

/** Parses with the schema of a process. Throws one Error with a line for every setting that is wrong. `more`: problems that it finds itself. */
export function readSettings<S extends v.GenericSchema>(
  schema: S,
  env: Env,
  { args = process.argv.slice(2), more = () => [] }: { args?: string[]; more?: (env: Env) => string[] } = {},
): Read<v.InferOutput<S>> {
  const given = givenSettings(env, args)
  const read = v.safeParse(schema, given.env)
  const lines = [
    ...given.problems,
    ...(read.issues ?? []).map(issue => `${v.getDotPath(issue) ?? 'environment'}: ${issue.message}`),
    ...more(given.env),
  ]
  if (!read.success || lines.length > 0) throw new Error(`invalid configuration:\n  ${lines.join('\n  ')}`)
  return { settings: read.output, idle: given.idle }
}

/** CONFIG_FILE, or `--config <file>`, under the environment. */
export function givenSettings(env: Env, args: string[] = []): Given {
  const problems: string[] = []
  const fromEnv = Object.entries(env).filter((pair): pair is [string, string] => Boolean(pair[1]))
  const file = configFile(args) ?? (env['CONFIG_FILE'] || undefined)
  const merged: Record<string, string> = {
    ...(file ? flattened(file, problems) : {}),
    ...Object.fromEntries(fromEnv),
    ...(file ? { CONFIG_FILE: resolve(file) } : {}),
  }
  const idle: Given['idle'] = []
  for (const { key, env: name, schema, idle: because } of DOCUMENTED_SETTINGS) {
    const value = merged[name]
    if (value === undefined) continue
    const checked = schema && v.safeParse(schema, value)
    if (checked && !checked.success) problems.push(`${key}: ${checked.issues[0].message}`)
    if (because !== undefined) idle.push({ setting: key, because })
  }
  return { env: merged, problems, idle }
}

function configFile(args: string[]): string | undefined {
  const at = args.findIndex(arg => arg === '--config' || arg.startsWith('--config='))
  const arg = args[at]
  if (arg === undefined) return undefined
  return arg === '--config' ? args[at + 1] : arg.slice('--config='.length)
}

/** A config file as variables. What is neither documented nor written like a variable is a mistake worth stopping for. */
function flattened(file: string, problems: string[]): Record<string, string> {
  let content: unknown
  try {
    content = JSON.parse(readFileSync(file, 'utf8'))
  } catch (error) {
    problems.push(`CONFIG_FILE: ${file} cannot be read: ${(error as Error).message}`)
    return {}
  }
  if (!isObject(content)) {
    problems.push(`CONFIG_FILE: ${file} must hold a JSON object`)
    return {}
  }
  const env: Record<string, string> = {}
  const put = (name: string, value: unknown) => {
    // A template leaves an empty text where the default is meant.
    if (value === null || value === '') return
    env[name] = typeof value === 'object' ? JSON.stringify(value) : String(value)
  }
  const walk = (object: Record<string, unknown>, prefix: string) => {
    for (const [name, value] of Object.entries(object)) {
      const key = prefix + name
      const documented = byKey.get(key)
      if (documented) put(documented.env, value)
      else if (groups.has(key) && isObject(value)) walk(value, `${key}.`)
      else if (prefix === '' && /^[A-Z][A-Z0-9_]*$/.test(name)) put(name, value)
      else problems.push(`${key}: is no setting`)
    }
  }
  walk(content, '')
  return env
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
const byKey = new Map<string, DocumentedSetting>(DOCUMENTED_SETTINGS.map(row => [row.key, row]))
const groups = new Set(DOCUMENTED_SETTINGS.flatMap(({ key }) => (key.includes('.') ? [key.split('.')[0]!] : [])))
