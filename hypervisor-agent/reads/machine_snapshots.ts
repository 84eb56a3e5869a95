/** A VM's snapshots as its hypervisor lists them, oldest first. */
import type { ReadHandlers } from './read.ts'

export const machine_snapshots: ReadHandlers['machine_snapshots'] = async ({ hypervisor }, { uuid }) =>
  (await hypervisor.listSnapshots(uuid)).map(({ created_by: _, ...shown }) => shown)
