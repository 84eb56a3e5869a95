/**
 * The node's VMs as they are found, a page at a time: as many as fit into an answer and are looked at in time. One that does not let
 * itself be looked at is listed with the reason, and the others are told all the same.
 */
import type { FoundPage } from '../../actors/contract/found.ts'
import { within } from '../abort.ts'
import { HypervisorError } from '../hypervisor.ts'
import type { ReadHandlers } from './read.ts'

/** Bytes of a page as JSON: well below what an answer may have. One VM may be larger, by its tags. */
const pageBytes = 192 * 1024
/** When a page is closed, and how long one VM may take, ms. */
const pageMs = 8_000
const perVmMs = 5_000
const atOnce = 4

type Look = { vm: FoundPage['vms'][0] } | { unread: FoundPage['unread'][0] } | undefined

export const machine_found: ReadHandlers['machine_found'] = async ({ hypervisor, sightings }, { after = '' }) => {
  const at = Date.now()
  const uuids = (await hypervisor.listVms()).map(({ uuid }) => uuid.toLowerCase()).sort()
  sightings.keep(uuids)
  const due = uuids.filter(uuid => uuid > after.toLowerCase())
  const page: FoundPage = { at, vms: [], unread: [] }
  const end = performance.now() + pageMs
  let bytes = 0
  let looked = 0
  while (looked < due.length && bytes < pageBytes && performance.now() < end) {
    const some = due.slice(looked, looked + atOnce)
    looked += some.length
    for (const look of await Promise.all(some.map(uuid => lookAt(uuid)))) {
      if (!look) continue
      bytes += JSON.stringify(look).length
      if ('vm' in look) page.vms.push(look.vm)
      else page.unread.push(look.unread)
    }
  }
  return { ...page, ...(looked < due.length ? { next: due[looked - 1] } : {}) } satisfies FoundPage

  async function lookAt(uuid: string): Promise<Look> {
    const late = () => new HypervisorError('HypervisorUnavailable', 'the hypervisor did not show it in time')
    try {
      const vm = await within(perVmMs, new AbortController().signal, late, () => hypervisor.lookAtVm(uuid))
      return vm && { vm: { ...vm, since: sightings.note(vm, Date.now()) } }
    } catch (error) {
      if (!(error instanceof HypervisorError)) throw error
      return { unread: { uuid, code: error.code, message: error.message } }
    }
  }
}
