/** What an agent makes of a snapshot that libvirt is still taking for one that died: it waits for its end, whatever that is. */
import { type Domain, ERROR_CODES, type Hypervisor as Libvirt, LibvirtError } from 'node-libvirt'
import * as assert from 'uvu/assert'
import { createSnapshot, deleteSnapshot, rollbackSnapshot } from '../../hypervisor-agent/libvirt/snapshots.ts'
import { suite } from '../suite.ts'

const test = suite('snapshots that outlive their agent')
const wanted = { name: 'kept', taskId: 'task' }
const xml = `<domainsnapshot><name>kept</name><description>{"task_id":"task"}</description><state>running</state>
<creationTime>1</creationTime><memory snapshot="internal"/></domainsnapshot>`

/** A domain whose snapshot libvirt is taking: it cannot be resumed before that is over, after so many tries. */
function domainAtWork({ busyFor, isTaken }: { busyFor: number; isTaken: boolean }) {
  let tries = 0
  const isOver = () => tries >= busyFor
  const snapshot = { getXml: async () => xml, isCurrent: async () => true }
  const listed = () => isTaken || !isOver()
  const domain = {
    uuid: 'vm',
    getXml: async () => '<domain/>',
    getState: async () => (isOver() ? { state: 'running', reason: 'unpaused' } : { state: 'paused', reason: 'save' }),
    resume: async () => {
      tries += 1
      throw new Error('cannot acquire state change lock')
    },
    listSnapshots: async () => (listed() ? [snapshot] : []),
    lookupSnapshot: async () => {
      if (listed()) return snapshot
      throw new LibvirtError({ code: ERROR_CODES.NO_DOMAIN_SNAPSHOT, domain: 0, level: 2, message: 'none' }, 'lookup')
    },
    createSnapshot: async () => {
      throw new Error('it is taken anew')
    },
  } as unknown as Domain
  return { domain, tries: () => tries }
}

test('one that libvirt is still taking is waited for', async () => {
  const { domain, tries } = domainAtWork({ busyFor: 2, isTaken: true })
  await createSnapshot(domain, {} as Libvirt, wanted, 'pool')
  assert.is(tries(), 2)
})

test('one that libvirt could not take in the end is taken anew', async () => {
  const { domain } = domainAtWork({ busyFor: 1, isTaken: false })
  const end = await createSnapshot(domain, {} as Libvirt, wanted, 'pool').catch(error => error.message)
  assert.is(end, 'it is taken anew')
})

/** A domain with a snapshot on which libvirt is still at work with something else, for so many calls. */
function domainHeld(busyFor: number, holder: string) {
  let calls = 0
  const call = async () => {
    calls += 1
    if (calls > busyFor) return
    const message = `Timed out during operation: cannot acquire state change lock (held by ${holder})`
    throw new LibvirtError({ code: ERROR_CODES.OPERATION_TIMEOUT, domain: 10, level: 2, message }, 'revert')
  }
  const domain = {
    uuid: 'vm',
    getXml: async () => '<domain/>',
    isActive: async () => true,
    setMetadata: async () => {},
    lookupSnapshot: async () => ({ getXml: async () => xml, revert: call, delete: call }),
  } as unknown as Domain
  return { domain, calls: () => calls }
}
const asked = {
  rollback: (domain: Domain) => rollbackSnapshot(domain, 'kept', async () => {}),
  deletion: (domain: Domain) => deleteSnapshot(domain, 'kept'),
}

for (const [name, act] of Object.entries(asked)) {
  test(`a ${name} that libvirt is still at for an agent that died is waited for`, async () => {
    const { domain, calls } = domainHeld(2, 'monitor=remoteDispatchDomainRevertToSnapshot')
    await act(domain)
    assert.is(calls(), 3)
  })

  test(`a ${name} of a guest that hangs with something else fails`, async () => {
    const { domain, calls } = domainHeld(2, 'remoteDispatchDomainMemoryStats')
    const end = await act(domain).catch(error => error.codeName)
    assert.equal([end, calls()], ['OPERATION_TIMEOUT', 1])
  })
}

test.run()
