/** Stages about where the VM would rather be (rules.md §5): beside or apart from other VMs, off servers that are held back. */
import { meaningOf } from './affinity.ts'
import type { Layout } from './index.ts'
import { keep } from './keep.ts'
import { descending } from './ranks.ts'
import type { Load, Row } from './row.ts'
import type { Ask, Plan, Selection, Stage } from './stage.ts'

/** Share of the survivors, those with most RAM, that is held back. */
const HELD_BACK = 0.15

export const hints: Stage[] = [
  { rule: 'calculate-affinity', label: 'Affinity rules turned into locality', plan: affinity },
  {
    rule: 'hard-filter-locality-hints',
    label: 'Servers near to and far from other VMs as required',
    plan: hardLocality,
  },
  {
    rule: 'hard-filter-owners-servers',
    label: 'Servers open to the owner',
    plan: () => ({ does: 'skip', why: 'no server is kept for an owner' }),
  },
  {
    rule: 'hard-filter-reservoir',
    label: 'Servers which are not in the reservoir',
    orElse: 'identity',
    plan: () => offReservoir,
  },
  {
    rule: 'hard-filter-large-servers',
    label: 'Servers which are not held back for large VMs',
    orElse: 'identity',
    plan: holdBack,
  },
  { rule: 'soft-filter-locality-hints', label: 'Servers near to and far from other VMs as hoped', plan: softLocality },
]

const offReservoir: Plan = {
  does: 'filter',
  alike: 'reservoir',
  keeps: row => !row.reservoir,
  why: () => 'it is in the reservoir, which is used last',
}

function affinity(ask: Ask, layout: Layout): Plan {
  const { vm } = ask.request
  if (!vm.affinity) return { does: 'skip', why: 'the request has no affinity' }
  const meaning = meaningOf(vm.affinity, vm.owner_uuid, layout.directory)
  if ('fails' in meaning) return { does: 'refuse', why: meaning.fails }
  if (meaning.locality) ask.locality = meaning.locality
  return meaning.ignored.length > 0
    ? { does: 'skip', why: `ignored: ${meaning.ignored.join('; ')}` }
    : { does: 'nothing' }
}

function hardLocality({ locality, request: { vm } }: Ask, layout: Layout): Plan {
  const near = listOf(locality?.near)
  const far = listOf(locality?.far)
  if (locality?.strict !== true || near.length + far.length === 0) {
    return { does: 'skip', why: 'nothing is strictly near or far' }
  }
  const { owner_uuid: owner } = vm
  const shunned = slotsWith(far, owner, layout)
  return {
    does: 'select',
    from: list => {
      const apart = keep(list, slot => !shunned.has(slot))
      const why = (row: Row) =>
        shunned.has(layout.slotOf.get(row.uuid) ?? -1) ? 'it has a VM to be far from' : 'it lacks a VM to be near to'
      if (near.length === 0) return { list: apart, why }
      const [first, ...others] = near as [string, ...string[]]
      const hosts = slotsWith([first], owner, layout)
      const slot = apart.find(candidate => hosts.has(candidate))
      const all = slot !== undefined && others.every(uuid => slotsWith([uuid], undefined, layout).has(slot))
      if (all) return { list: Int32Array.of(slot), why }
      return { list: new Int32Array(), about: 'no server left has all the VMs to be near to', why }
    },
  }
}

function holdBack({ knobs }: Ask, layout: Layout): Plan {
  if (!knobs.filter_large_servers) return { does: 'skip', why: 'no server is held back' }
  return {
    does: 'select',
    from: list => {
      if (list.length * HELD_BACK < 1) return { list }
      const byRam = descending(layout.byRam, list)
      return {
        list: byRam.slice(Math.trunc(list.length * HELD_BACK)),
        why: () => 'it is among the servers with most RAM left, which are held back for large VMs',
      }
    },
  }
}

function softLocality({ locality, request: { vm } }: Ask, layout: Layout): Plan {
  const near = listOf(locality?.near)
  const far = listOf(locality?.far)
  if (near.length + far.length === 0) return { does: 'select', from: list => spread(list, vm.owner_uuid, layout) }
  if (locality?.strict === true) return { does: 'skip', why: 'near and far were strict' }
  return {
    does: 'select',
    from: list => {
      const shunned = slotsWith(far, vm.owner_uuid, layout)
      const hosts = slotsWith(near, vm.owner_uuid, layout)
      const apart = orAll(list, far.length > 0 ? keep(list, slot => !shunned.has(slot)) : list)
      const together =
        near.length > 0
          ? orAll(
              apart,
              keep(apart, slot => hosts.has(slot)),
            )
          : apart
      const undone = [
        ...(far.length > 0 && apart === list && list.some(slot => shunned.has(slot)) ? ['far'] : []),
        ...(near.length > 0 && together === apart && !apart.some(slot => hosts.has(slot)) ? ['near'] : []),
      ]
      return {
        list: together,
        ...(undone.length > 0 ? { about: `ignored, since no server is so: ${undone.join(' and ')}` } : {}),
        why: row =>
          shunned.has(layout.slotOf.get(row.uuid) ?? -1)
            ? 'it has a VM to be far from'
            : 'others have a VM to be near to',
      }
    },
  }
}

/** Without any hint an owner's VMs are spread: servers without one of them are preferred. */
function spread(list: Int32Array, owner: string, layout: Layout): Selection {
  const hosts = new Set([...layout.hostsOf(owner).keys()].map(uuid => layout.slotOf.get(uuid)))
  const free = keep(list, slot => !hosts.has(slot))
  if (free.length === 0) return { list, about: 'ignored, since every server has a VM of this owner' }
  return { list: free, why: () => 'it has a VM of this owner, and others have none' }
}

const orAll = (all: Int32Array, some: Int32Array) => (some.length > 0 ? some : all)

/** Servers with any of these VMs; of this owner, where one is given. */
function slotsWith(uuids: readonly string[], owner: string | undefined, layout: Layout): ReadonlySet<number> {
  const ofOwner = (load: Load) => owner === undefined || load.owner_uuid === owner
  const slots = uuids.flatMap(uuid =>
    layout
      .loadsOf(uuid)
      .filter(ofOwner)
      .map(load => layout.slotOf.get(load.server_uuid)),
  )
  return new Set(slots.filter(slot => slot !== undefined))
}

function listOf(uuids: string | readonly string[] | null | undefined): readonly string[] {
  if (!uuids) return []
  return typeof uuids === 'string' ? [uuids] : uuids
}
