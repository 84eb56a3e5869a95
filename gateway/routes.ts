/** The table of routes, merged: what the app serves, what the OpenAPI document tells, what the tests tick off. */
import { openApiRow } from './openapi.ts'
import { agentRows } from './routes/agents.ts'
import { allocationRows } from './routes/allocation.ts'
import { bootRows } from './routes/boot.ts'
import { dockerRows } from './routes/docker.ts'
import { driftRows } from './routes/drift.ts'
import { eventRows } from './routes/events.ts'
import { hostRows } from './routes/hosts.ts'
import { imageRows } from './routes/images.ts'
import { jobRows } from './routes/jobs.ts'
import { networkRows } from './routes/networks.ts'
import { platformRows } from './routes/platforms.ts'
import { serverJobRows } from './routes/server-jobs.ts'
import { serverNodeRows } from './routes/server-node.ts'
import { serverStatusRows } from './routes/server-status.ts'
import { serverRows } from './routes/servers.ts'
import { serverChangeRows } from './routes/servers-changes.ts'
import { serviceRows } from './routes/service.ts'
import { adminRows, type Self } from './routes/service-admin.ts'
import { snapshotRows } from './routes/snapshots.ts'
import { taskRows } from './routes/tasks.ts'
import { ticketRows } from './routes/tickets.ts'
import { vmImageRows } from './routes/vm-images.ts'
import { vmMigrateRows } from './routes/vm-migrate.ts'
import { vmUpdateRows } from './routes/vm-updates.ts'
import { vmRows } from './routes/vms.ts'
import { waitlistRows } from './routes/waitlist.ts'
import { zfsRows } from './routes/zfs.ts'
import type { AnyRow } from './row.ts'

/** All rows. Where two paths fit a request the earlier row answers, so literal paths stand before parametrised ones. */
export function routes(version: string, self: Self = nobody(version)): AnyRow[] {
  const rows = [
    ...serviceRows(version),
    ...adminRows(self),
    ...eventRows,
    ...serverRows,
    ...serverNodeRows,
    ...serverStatusRows,
    ...driftRows,
    ...serverChangeRows,
    ...bootRows,
    ...platformRows,
    ...serverJobRows,
    ...jobRows,
    ...vmUpdateRows,
    ...vmMigrateRows,
    ...vmRows,
    ...snapshotRows,
    ...vmImageRows,
    ...dockerRows,
    ...allocationRows,
    ...taskRows,
    ...hostRows,
    ...networkRows,
    ...imageRows,
    ...agentRows,
    ...zfsRows,
    ...ticketRows,
    ...waitlistRows,
  ]
  return [...rows, openApiRow(rows, version)]
}

/** For whoever wants the table and serves nothing. */
const nobody = (version: string): Self => ({ version, startedAt: new Date(0), log: { level: 'info' } })
