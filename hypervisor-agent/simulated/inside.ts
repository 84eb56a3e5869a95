/** What runs in and for simulated guests, put together: threads, programs, figures. */
import type { GuestPrograms } from '../guest-programs.ts'
import type { Processes } from '../processes.ts'
import type { VmStats } from '../vm-stats.ts'
import { type GuestProgramParts, simulatedGuestPrograms } from './guest-programs.ts'
import { simulatedProcesses } from './processes.ts'
import { simulatedVmStats } from './vm-stats.ts'

export type InsideParts = Omit<GuestProgramParts, 'call'> & {
  call<T>(name: keyof (GuestPrograms & Processes & VmStats), uuid: string, effect: () => T): Promise<T>
}

export function simulatedInside(parts: InsideParts): GuestPrograms & Processes & VmStats {
  return { ...simulatedProcesses(parts), ...simulatedGuestPrograms(parts), ...simulatedVmStats(parts) }
}
