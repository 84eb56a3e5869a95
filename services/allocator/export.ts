/** The fleet as a document `fleet/1`, a page of servers at a time: what `npm run allocate` reads. */
import type { Fleet } from './fleet.ts'

/** Servers of one page: a sysinfo may be large, and a message holds 1 MB. */
const PAGE = 20

/** `next` is the offset of the next page; tickets and settings come with the first. */
export function exported(fleet: Fleet, settings: object, offset: number): object {
  const { rows, directory } = fleet.index.layout()
  const servers = rows.slice(offset, offset + PAGE).map(({ server, uuid }) => ({
    ...server,
    vms: Object.fromEntries(directory.onServer(uuid).map(vm => [vm.uuid, shown(vm)])),
  }))
  const next = offset + PAGE < rows.length ? { next: offset + PAGE } : {}
  if (offset > 0) return { servers, ...next }
  const tickets = [...fleet.tickets()].map(ticket => ({ ...ticket, status: 'queued' }))
  return { format: 'fleet/1', ...settings, servers, tickets, requests: [], ...next }
}

function shown({
  uuid,
  owner_uuid,
  brand,
  max_physical_memory,
  cpu_cap,
  quota,
  alias,
}: ReturnType<Layout['directory']['onServer']>[number]) {
  return { uuid, owner_uuid, brand, state: 'running', max_physical_memory, cpu_cap, quota, alias }
}

type Layout = ReturnType<Fleet['index']['layout']>
