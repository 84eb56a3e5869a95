/**
 * Drift: none after a VM was made, each single change found and nothing else, none once it is adopted, none once it is enforced. Enforcing
 * is worked out by the rules that the agent's update follows, adopting by those of the VM's actor.
 */
import fc from 'fast-check'
import * as assert from 'uvu/assert'
import { type FoundVm, partsOf, slotOf, targetOf } from '../../actors/contract/found.ts'
import type { VmContext } from '../../actors/contract/vm.ts'
import type { VmChanges } from '../../actors/contract/vm-changes.ts'
import { adopted } from '../../actors/vm/adopted.ts'
import { differences, reportedDifferences } from '../../gateway/drift.ts'
import { adoption, enforcement } from '../../gateway/drift-settle.ts'
import type { VmShape } from '../../hypervisor-agent/devices.ts'
import { changedShape } from '../../hypervisor-agent/shape.ts'
import { openSightings } from '../../hypervisor-agent/sightings.ts'
import { foundVm, wantedVm } from '../drift-sample.ts'
import { suite } from '../suite.ts'

const test = suite('drift')
const seed = Number(process.env['SEED'] ?? Date.now() % 2 ** 31)
console.log(`seed ${seed}: repeat with SEED=${seed}`)
const runs = { seed, numRuns: 300 }
const taskId = '66666666-6666-4666-8666-666666666666'

const running = (context: VmContext = wantedVm) => ({ state: 'running', context })
const fieldsOf = (found: FoundVm, context?: VmContext) => differences(running(context), found).map(one => one.field)

/** A VM with any disks, NICs and tags. */
const anyVm = fc
  .record({
    ram: fc.integer({ min: 1, max: 4096 }),
    vcpus: fc.integer({ min: 1, max: 8 }),
    autoboot: fc.boolean(),
    alias: fc.option(fc.constantFrom('a', 'b c', '')),
    cpu_cap: fc.option(fc.integer({ min: 1, max: 800 })),
    quota: fc.option(fc.integer({ min: 0, max: 50 })),
    owner_uuid: fc.option(fc.uuid()),
    tags: fc.dictionary(fc.constantFrom('role', 'tier', 'x'), fc.jsonValue({ maxDepth: 1 })),
    disks: fc.array(fc.record({ size_mib: fc.integer({ min: 64, max: 512 }), image: fc.option(fc.constant('img')) }), {
      maxLength: 4,
    }),
    nics: fc.uniqueArray(
      fc.record({
        last: fc.integer({ min: 16, max: 99 }),
        place: fc.oneof(
          fc.record({ network: fc.constantFrom('net0', 'net1') }),
          fc.record({ nic_tag: fc.constantFrom('admin', 'external'), vlan_id: fc.constantFrom(0, 10, 20) }),
          fc.record({ bridge: fc.constantFrom('br0', 'br1'), vlan_id: fc.constantFrom(0, 30) }),
        ),
      }),
      { maxLength: 3, selector: ({ last }) => last },
    ),
  })
  .map(({ disks, nics, ...made }) => ({
    ...made,
    disks: disks.map(({ size_mib, image }) => ({ size_mib, ...(image === null ? {} : { image }) })),
    nics: nics.map(({ last, place }) => {
      const { vlan_id, ...rest } = place as { vlan_id?: number }
      return { mac: `52:54:00:00:00:${last}`, ...rest, ...(vlan_id ? { vlan_id } : {}) }
    }),
  }))
type AnyVm = typeof anyVm extends fc.Arbitrary<infer T> ? T : never

const contextOf = (vm: AnyVm): VmContext => ({ ...wantedVm, ...vm })
const foundOf = ({ disks, nics, ...fields }: AnyVm): FoundVm => ({
  ...foundVm,
  definition: { ...fields, disks: disks.map((disk, slot) => ({ slot, ...disk })), nics },
  ports: nics.map((nic, n) => {
    const place = { bridge: 'br0', vlan_id: 'vlan_id' in nic ? (nic.vlan_id as number) : null }
    return { mac: nic.mac, interface: `vnet${n}`, as: place, is: place }
  }),
})

/** One thing that somebody does behind Muster's back, and the field it shows in. */
interface Change {
  field: string
  found: FoundVm
}
const changesOf = (vm: FoundVm): Change[] => {
  const { definition, ports } = vm
  const { disks, nics } = definition
  const withDefinition = (field: string, more: Partial<FoundVm['definition']>): Change => ({
    field,
    found: { ...vm, definition: { ...definition, ...more } },
  })
  return [
    { field: 'state', found: { ...vm, state: 'stopped' } },
    { field: 'name', found: { ...vm, name: 'renamed' } },
    withDefinition('ram', { ram: definition.ram + 1 }),
    withDefinition('vcpus', { vcpus: definition.vcpus + 1 }),
    withDefinition('autoboot', { autoboot: !definition.autoboot }),
    withDefinition('alias', { alias: `${definition.alias ?? ''}!` }),
    withDefinition('owner_uuid', { owner_uuid: '77777777-7777-4777-8777-777777777777' }),
    withDefinition('cpu_cap', { cpu_cap: (definition.cpu_cap ?? 0) + 1 }),
    withDefinition('quota', { quota: (definition.quota ?? 0) + 1 }),
    withDefinition('tags', { tags: { ...definition.tags, new: 1 } }),
    ...disks.flatMap((disk, n) => [
      withDefinition(`disks.${targetOf(disk.slot)}`, {
        disks: disks.with(n, { ...disk, size_mib: disk.size_mib - 1 }),
      }),
      withDefinition(`disks.${targetOf(disk.slot)}`, {
        disks: disks.with(n, { ...disk, size_mib: disk.size_mib + 1 }),
      }),
      withDefinition(`disks.${targetOf(disk.slot)}`, { disks: disks.filter(other => other !== disk) }),
      withDefinition(`disks.${targetOf(disk.slot)}`, { disks: disks.with(n, { ...disk, image: 'another' }) }),
    ]),
    ...disks.map((disk, n) =>
      withDefinition(`disks.${targetOf(disk.slot)}`, { disks: disks.with(n, { ...disk, file: '/backup/overlay' }) }),
    ),
    withDefinition('disks.sdz', { disks: [...disks, { slot: 25, size_mib: 7 }] }),
    ...nics.flatMap((nic, n) => [
      withDefinition(`nics.${nic.mac}`, { nics: nics.with(n, { mac: nic.mac, bridge: 'br9', vlan_id: 99 }) }),
      withDefinition(`nics.${nic.mac}`, { nics: nics.filter(other => other !== nic) }),
      ...ports
        .filter(({ mac }) => mac === nic.mac)
        .map(port => ({
          field: `nics.${nic.mac}.port`,
          found: {
            ...vm,
            ports: ports.map(one => (one === port ? { ...one, is: { bridge: 'br0', vlan_id: 4000 } } : one)),
          },
        })),
    ]),
    withDefinition('nics.52:54:00:00:00:02', { nics: [...nics, { mac: '52:54:00:00:00:02', bridge: 'br0' }] }),
  ]
}

/** What the agent's update would make of it, by its own rules. */
function updated(found: FoundVm, changes: VmChanges): FoundVm {
  const { ram, alias, owner_uuid, cpu_cap, quota, disks, ...rest } = found.definition
  const before: VmShape = {
    ...{ ...rest, memory_mib: ram, customer_metadata: {}, internal_metadata: {} },
    ...(alias === null ? {} : { alias }),
    ...(owner_uuid === null ? {} : { owner_uuid }),
    ...(cpu_cap === null ? {} : { cpu_cap }),
    ...(quota === null ? {} : { quota_gib: quota }),
    disks: disks.map(({ slot, size_mib, image }) => ({
      ...{ slot, size_mib, volume: `v${slot}` },
      ...(image === undefined ? {} : { image }),
    })),
  }
  const after = changedShape(found.uuid, before, changes, taskId)
  const { memory_mib, vcpus, autoboot, tags, nics } = after
  const named = new Set([...(changes.update_nics ?? [])].map(({ mac }) => mac))
  return {
    ...found,
    definition: {
      ...{ ram: memory_mib, vcpus, autoboot, tags, nics },
      ...{ alias: after.alias ?? null, owner_uuid: after.owner_uuid ?? null },
      ...{ cpu_cap: after.cpu_cap ?? null, quota: after.quota_gib ?? null },
      disks: after.disks.map(({ volume: _, ...disk }) => disk),
    },
    ports: found.ports.map(port => (named.has(port.mac) ? { ...port, is: port.as } : port)),
  }
}

test('a VM that is as it was made has no drift', () => {
  assert.equal(differences(running(), foundVm), [])
  fc.assert(
    fc.property(anyVm, vm => {
      assert.equal(differences(running(contextOf(vm)), foundOf(vm)), [])
    }),
    runs,
  )
})

test('each single change is found, and only it', () => {
  fc.assert(
    fc.property(anyVm, vm => {
      for (const { field, found } of changesOf(foundOf(vm))) assert.equal(fieldsOf(found, contextOf(vm)), [field])
    }),
    runs,
  )
})

test('what is adopted is no drift any more, and nothing else is adopted by the way', () => {
  fc.assert(
    fc.property(anyVm, fc.nat(), fc.nat(), (vm, a, b) => {
      const context = contextOf(vm)
      const changes = changesOf(foundOf(vm))
      const { field, found } = changes[a % changes.length]!
      // Another change on top of it, of a field, which has to stay.
      const other = changesOf(found)[b % 10]!
      const seen = differences(running(context), other.found)
      const difference = seen.find(one => one.field === field)
      if (!difference) return
      const settled = adoption(difference, other.found)
      if (!('adopt' in settled)) return
      const record = { ...context, ...adopted(context, settled.adopt) }
      assert.equal(
        fieldsOf(other.found, record),
        seen.map(one => one.field).filter(one => one !== field),
      )
    }),
    runs,
  )
})

test('what is enforced is no drift any more, unless nothing can enforce it, and then that is said', () => {
  const refused = new Set<string>()
  const done = new Set<string>()
  fc.assert(
    fc.property(anyVm, vm => {
      const context = contextOf(vm)
      for (const { field, found } of changesOf(foundOf(vm))) {
        const settled = enforcement(differences(running(context), found)[0]!, running(context))
        const kind = field.replace(/\..*(\.port)?$/, field.endsWith('.port') ? '.port' : '')
        if ('error' in settled) {
          assert.is(settled.error.code, 'InvalidArgument')
          refused.add(kind)
        } else if ('verb' in settled && settled.verb === 'update') {
          assert.equal(fieldsOf(updated(found, settled.params['changes'] as VmChanges), context), [])
          done.add(kind)
        } else assert.is(field, 'state')
      }
    }),
    runs,
  )
  assert.equal([...refused].sort(), ['disks', 'name', 'owner_uuid'])
  const all = [
    'alias',
    'autoboot',
    'cpu_cap',
    'disks',
    'nics',
    'nics.port',
    'owner_uuid',
    'quota',
    'ram',
    'tags',
    'vcpus',
  ]
  assert.equal([...done].sort(), all)
})

test('a state is enforced by the verb that leads there, and adopted as a report is', () => {
  const of = (wanted: string) => enforcement({ field: 'state', wanted, found: 'x' }, running())
  assert.equal(of('running'), { verb: 'start', params: { idempotent: true } })
  assert.equal(of('stopped'), { verb: 'stop', params: { idempotent: true } })
  assert.is('error' in of('failed'), true)
  assert.equal(adoption({ field: 'state', wanted: 'running', found: 'stopped' }, foundVm), { reported: true })
})

test('an operation in flight explains what it may change, and nothing else', () => {
  const operation = (verb: 'stop' | 'update' | 'delete_snapshot') => ({
    ...wantedVm,
    before: 'running',
    operation: { verb, task_id: taskId, at: 1, params: {} },
  })
  const found = { ...foundVm, state: 'stopped', definition: { ...foundVm.definition, ram: 512 } }
  const explained = (verb: 'stop' | 'update' | 'delete_snapshot') =>
    differences({ state: 'doing', context: operation(verb) }, found).map(one => [one.field, one.operation?.verb])
  assert.equal(explained('stop'), [
    ['state', 'stop'],
    ['ram', undefined],
  ])
  assert.equal(explained('update'), [
    ['state', undefined],
    ['ram', 'update'],
  ])
  assert.equal(explained('delete_snapshot'), [
    ['state', undefined],
    ['ram', undefined],
  ])
})

test('of a report only what it tells is compared', () => {
  assert.equal(reportedDifferences(running(), { state: 'running', ram: 256, vcpus: 1 }), [])
  assert.equal(
    reportedDifferences(running(), { state: 'stopped', ram: 256 }).map(one => one.field),
    ['state'],
  )
})

test('a part is as old as the last look at which it was otherwise, or as the hypervisor says', () => {
  const sightings = openSightings()
  const at = (found: FoundVm, now: number) => sightings.note(found, now)
  const first = at({ ...foundVm, changed_at: 1_000 }, 5_000)
  assert.equal([first['ram'], first['state']], [1_000, 1_000])
  const more = { ...foundVm, changed_at: 7_000, definition: { ...foundVm.definition, ram: 512 } }
  const second = at(more, 9_000)
  assert.equal([second['ram'], second['vcpus']], [7_000, 1_000])
  // A change that the hypervisor did not tell of, as libvirt of some: seen now, and not at the look before.
  const silent = { ...more, definition: { ...more.definition, vcpus: 2 } }
  assert.is(at(silent, 9_500)['vcpus'], 9_500)
  at(more, 9_600)
  // An unrelated change later leaves its age as it is.
  assert.is(at({ ...more, changed_at: 20_000 }, 21_000)['ram'], 7_000)
  const port = `nics.${foundVm.ports[0]!.mac}.port`
  const bent = { ...more, ports: [{ ...foundVm.ports[0]!, is: { bridge: 'br0', vlan_id: 99 } }] }
  assert.is(at(bent, 30_000)[port], 30_000, 'a switch tells nobody')
  assert.is(at(bent, 40_000)[port], 30_000)
  const gone = at({ ...more, changed_at: 50_000, definition: { ...more.definition, nics: [] } }, 51_000)
  assert.is(gone[`nics.${foundVm.ports[0]!.mac}`], 50_000, 'what is gone has an age too')
  sightings.keep([])
  assert.is(at({ ...more, changed_at: 60_000 }, 61_000)['ram'], 60_000)
})

test('slots and targets are each other’s reverse', () => {
  for (const slot of [0, 1, 25, 26, 255]) assert.is(slotOf(targetOf(slot)), slot)
  assert.equal([slotOf('vda'), slotOf('sd')], [-1, -1])
  assert.equal(
    Object.keys(partsOf(foundVm)).filter(name => name.startsWith('disks.')),
    ['disks.sda', 'disks.sdb'],
  )
})

test.run()
