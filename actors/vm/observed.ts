/** What a node's word on a VM says to its record. */
import type { VmContext } from '../contract/vm.ts'

export function lookedAt(vm: { state: string } & Record<string, unknown>, at: number): VmContext['observed'] {
  return {
    state: vm.state,
    at,
    domain_id: numberOr(vm['domain_id'], null),
    domain_state: stringOr(vm['domain_state'], null),
  }
}

/** The same but for the time of looking. */
export function looksAlike(known: VmContext['observed'], seen: VmContext['observed']): boolean {
  return (
    known?.state === seen?.state && known?.domain_id === seen?.domain_id && known?.domain_state === seen?.domain_state
  )
}

export function stringOr<D extends string | null>(value: unknown, otherwise: D): string | D {
  return typeof value === 'string' ? value : otherwise
}
export function numberOr<D extends number | null>(value: unknown, otherwise: D): number | D {
  return typeof value === 'number' ? value : otherwise
}
