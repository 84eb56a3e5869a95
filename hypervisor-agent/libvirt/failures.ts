/** libvirt's errors in Muster's words: which code of table ERRORS each is, and what was being done. */
import { ConnectionError, type ErrorCodeName, LibvirtError } from 'node-libvirt'
import type { ErrorCode } from '../../actors/contract/errors.ts'
import { HypervisorError } from '../hypervisor.ts'

const codes: Partial<Record<ErrorCodeName, ErrorCode>> = {
  NO_DOMAIN: 'VmNotFound',
  DOM_EXIST: 'VmExists',
  NO_DOMAIN_SNAPSHOT: 'SnapshotNotFound',
  NO_NETWORK: 'NetworkNotFound',
  NETWORK_EXIST: 'NetworkExists',
  NO_CONNECT: 'HypervisorUnavailable',
  AUTH_FAILED: 'HypervisorUnavailable',
  AUTH_CANCELLED: 'HypervisorUnavailable',
  AUTH_UNAVAILABLE: 'HypervisorUnavailable',
}

// QEMU's and the kernel's words, which libvirt passes on under general codes.
const texts: [RegExp, ErrorCode][] = [
  [/no space left on device/i, 'InsufficientStorage'],
  [/cannot allocate memory|cannot set up guest memory/i, 'InsufficientMemory'],
  [/unable to add port|cannot get interface mtu/i, 'BridgeNotFound'],
]

/** `doing` completes "cannot ...". A HypervisorError stays what it is. */
export function failure(doing: string, error: unknown): HypervisorError {
  if (error instanceof HypervisorError) return error
  const said = error instanceof Error ? error.message : String(error)
  return new HypervisorError(codeOf(error), `cannot ${doing}: ${said}`, { cause: error })
}

function codeOf(error: unknown): ErrorCode {
  if (error instanceof ConnectionError) return 'HypervisorUnavailable'
  if (!(error instanceof LibvirtError)) return 'HypervisorError'
  const named = error.codeName === 'UNKNOWN' ? undefined : codes[error.codeName]
  return named ?? texts.find(([pattern]) => pattern.test(error.message))?.[1] ?? 'HypervisorError'
}

/** What to tell an operator when there is no connection. */
export function unavailable(socketPath: string, uri: string, error: unknown): HypervisorError {
  const said = error instanceof Error ? error.message : String(error)
  const hint = Object.entries(hints).find(([word]) => said.includes(word))?.[1] ?? ''
  const message = `libvirt (${uri}) cannot be reached at ${socketPath}: ${said}${hint && `; ${hint}`}`
  return new HypervisorError('HypervisorUnavailable', message, { cause: error })
}

const hints = {
  ENOENT: 'install libvirt-daemon-system or start libvirtd',
  ECONNREFUSED: 'start libvirtd',
  EACCES: 'add the agent’s user to the group libvirt',
  polkit: 'add the agent’s user to the group libvirt (polkit looks the user up, not the process)',
}
