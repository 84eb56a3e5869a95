/** The rules of boot modules, with the old service's words for what breaks them (cnapi-behaviour §6.3). */
import { posix } from 'node:path'
import type { BootModule } from '../actors/contract/boot.ts'
import { type Rejection, rejection } from '../actors/contract/errors.ts'

/** Longest content of a module, decoded, bytes. */
const MODULE_MAX_BYTES = 4096

/** The modules as they are stored, `type` filled in; else every problem in one refusal, one for each module. */
export function bootModules(given: readonly unknown[]): { value: BootModule[] } | { error: Rejection } {
  const judged = given.map(judge)
  const problems = judged.filter(one => typeof one === 'string')
  if (problems.length === 0) return { value: judged as BootModule[] }
  const message = `Values provided for boot_modules contain errors: ${problems.join(',\n')}`
  return { error: rejection('InvalidArgument', message) }
}

/** The module, or what is wrong with it. */
function judge(given: unknown): BootModule | string {
  const { path, type = 'base64', content } = (given ?? {}) as Record<string, unknown>
  if (type !== 'base64') return `Unsupported type ${told(type)} for module '${told(path)}'`
  if (typeof path !== 'string' || typeof content !== 'string' || path === '' || content === '') {
    return `Unexpected format for boot_module: ${told(given)}`
  }
  if (posix.normalize(path) !== path || path.includes('\0') || path.split('/').includes('..')) {
    return `Invalid path for boot_module: '${told(path)}' (it must be a normal one, without '.' or '..')`
  }
  const bytes = Buffer.from(content, 'base64')
  if (bytes.length > MODULE_MAX_BYTES) {
    return `Contents for module '${told(path)}' exceeds the maximum allowed size of ${MODULE_MAX_BYTES / 1024}KB`
  }
  if (bytes.toString('base64') !== content) return `Contents for module '${told(path)}' must be base64 encoded`
  return { path, type, content }
}

/** Longest part of a caller's value that is told back. */
const TOLD_MAX = 256

function told(value: unknown): string {
  return String(typeof value === 'string' ? value : JSON.stringify(value)).slice(0, TOLD_MAX)
}
