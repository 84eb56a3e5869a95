/** Stages that remove servers which cannot take the VM (rules.md §3 and §4), in their order. */
import type { PlatformMap } from './fleet.ts'
import { lacking, meets } from './nic-tags.ts'
import { atLeast, atMost } from './platform.ts'
import type { Row } from './row.ts'
import type { Ask, Plan, Stage } from './stage.ts'
import { misfit, wantedTraits } from './traits.ts'

/** The image and 10 GiB more must fit beside a VM's quota, MiB. */
const DISK_RESERVE_MIB = 10_240

// Plans that no request changes are made once.
const isSetUp: Plan = { does: 'filter', alike: 'setup', keeps: row => row.setup, why: () => 'it is not set up' }

const isRunning: Plan = {
  does: 'filter',
  alike: 'status',
  keeps: row => row.status === 'running',
  why: row => `its status is ${row.status}`,
}

const isValid: Plan = {
  does: 'filter',
  alike: 'problem',
  keeps: row => row.problem === undefined,
  why: row => `its record cannot be used: ${row.problem}`,
}

const isFree: Plan = { does: 'filter', alike: 'reserved', keeps: row => !row.reserved, why: () => 'it is reserved' }

const isSized: Plan = {
  does: 'filter',
  alike: 'unsizedFlight',
  keeps: row => row.unsizedFlight === undefined,
  why: row => `ticket ${row.unsizedFlight} tells no dimensions of the VM on its way to it`,
}

export const filters: Stage[] = [
  {
    rule: 'hard-filter-setup',
    label: 'Servers which have been setup',
    plan: () => isSetUp,
  },
  {
    rule: 'hard-filter-running',
    label: 'Servers which are currently running',
    plan: () => isRunning,
  },
  {
    rule: 'hard-filter-os',
    label: 'Servers running the operating system required',
    plan: ({ request: { vm, image } }) => {
      const linux = vm.brand === 'lx' && image.type === 'lxd'
      return {
        does: 'filter',
        alike: 'system',
        keeps: row => row.muster || row.linux === linux,
        why: () => (linux ? 'it does not run Linux' : 'it runs Linux without a hypervisor of Muster'),
      }
    },
  },
  {
    rule: 'hard-filter-invalid-servers',
    label: 'Servers whose records are complete and well-formed',
    plan: () => isValid,
  },
  {
    rule: 'hard-filter-force-failure',
    label: 'Servers unless the request is to fail',
    plan: ({ request: { vm } }) =>
      vm.internal_metadata?.['force_designation_failure']
        ? { does: 'refuse', why: 'the request asks to fail (force_designation_failure)' }
        : { does: 'skip', why: 'the request does not ask to fail' },
  },
  {
    rule: 'hard-filter-virtual-servers',
    label: 'Servers which are not virtual, where the VM asks for that',
    plan: ({ request: { vm } }) =>
      vm.docker || vm.tags?.['triton.placement.exclude_virtual_servers']
        ? { does: 'filter', alike: 'virtual', keeps: row => !row.virtual, why: () => 'it is a virtual machine itself' }
        : { does: 'skip', why: 'virtual servers will do' },
  },
  {
    rule: 'hard-filter-zpool-encryption',
    label: 'Servers whose pool is encrypted as required',
    plan: ({ request: { vm } }) => {
      const wanted = Boolean(vm.internal_metadata?.['encrypted'])
      return {
        does: 'filter',
        alike: 'encrypted',
        keeps: row => row.encrypted === wanted,
        why: () => (wanted ? 'its pool is not encrypted' : 'its pool is encrypted'),
      }
    },
  },
  { rule: 'hard-filter-volumes-from', label: 'Servers which hold the volumes wanted', plan: volumesFrom },
  {
    rule: 'hard-filter-reserved',
    label: 'Servers which are not reserved',
    plan: () => isFree,
  },
  {
    rule: 'hard-filter-min-free-disk',
    label: 'Servers whose pool keeps the configured space free',
    plan: ({ knobs: { minimum_free_disk: least } }) =>
      least === undefined
        ? { does: 'skip', why: 'minimum_free_disk is not set' }
        : {
            does: 'limit',
            column: 'freeDiskMib',
            atLeast: least,
            why: row => `its pool has ${row.freeDiskMib} MiB free, and ${least} MiB are to stay free`,
          },
  },
  { rule: 'hard-filter-vlans', label: 'Servers supporting required NIC Tags', plan: nicTags },
  { rule: 'hard-filter-platform-versions', label: 'Servers with the platform required', plan: platforms },
  { rule: 'hard-filter-feature-min-platform', label: 'Servers whose platform has the features used', plan: features },
  {
    rule: 'hard-filter-traits',
    label: 'Servers with the traits asked for, and no others',
    plan: ({ request }) => {
      const wanted = wantedTraits(request)
      return {
        does: 'filter',
        alike: 'traits',
        keeps: row => misfit(wanted, row.traits) === undefined,
        why: row => misfit(wanted, row.traits) ?? '',
      }
    },
  },
  {
    rule: 'hard-filter-headnode',
    label: 'Servers which are not the headnode',
    plan: ({ knobs }) =>
      knobs.filter_headnode
        ? { does: 'filter', alike: 'headnode', keeps: row => !row.headnode, why: () => 'it is the headnode' }
        : { does: 'skip', why: 'the headnode may be used' },
  },
  {
    rule: 'override-overprovisioning',
    label: 'Overprovision ratios set for all servers and packages',
    plan: ({ knobs }) =>
      knobs.disable_override_overprovisioning
        ? { does: 'skip', why: 'servers and packages have ratios of their own' }
        : { does: 'nothing' },
  },
  { rule: 'hard-filter-overprovision-ratios', label: 'Servers with the overprovision ratios required', plan: ratios },
  { rule: 'load-server-vms', label: 'VMs of the servers loaded', plan: () => ({ does: 'nothing' }) },
  {
    rule: 'calculate-ticketed-vms',
    label: 'VMs on their way counted as if they were there',
    plan: () => isSized,
  },
  {
    rule: 'hard-filter-capness',
    label: 'Servers whose VMs have, or lack, a CPU cap like this one',
    plan: ({ knobs, request: { vm }, package: pkg }) => {
      if (!knobs.filter_capness) return { does: 'skip', why: 'VMs with and without cpu_cap may share a server' }
      const capped = Boolean(vm.cpu_cap || pkg?.cpu_cap)
      return {
        does: 'filter',
        alike: 'caps',
        keeps: row => (capped ? !row.capless : !row.capped),
        why: () => (capped ? 'it has VMs without cpu_cap' : 'it has VMs with cpu_cap'),
      }
    },
  },
  {
    rule: 'hard-filter-vm-count',
    label: 'Servers with room for another VM',
    plan: ({ knobs: { filter_vm_limit: limit } }) => ({
      does: 'limit',
      column: 'vmCount',
      below: limit,
      why: row => `it has ${row.loads.length} VMs, and may have fewer than ${limit}`,
    }),
  },
  { rule: 'hard-filter-hvm', label: 'Servers which can run the hypervisor required', plan: hypervisor },
  {
    rule: 'calculate-server-unreserved',
    label: 'Unreserved CPU, RAM and disk calculated',
    plan: () => ({ does: 'nothing' }),
  },
  { rule: 'hard-filter-min-ram', label: 'Servers with enough unreserved RAM', plan: ram },
  { rule: 'hard-filter-min-cpu', label: 'Servers with enough unreserved CPU', plan: cpu },
  { rule: 'hard-filter-min-disk', label: 'Servers with enough unreserved disk', plan: disk },
]

function volumesFrom({ request: { vm } }: Ask, layout: Parameters<Stage['plan']>[1]): Plan {
  const list = vm.docker ? vm.internal_metadata?.['docker:volumesfrom'] : undefined
  const uuids = typeof list === 'string' ? parsedList(list) : list
  if (!Array.isArray(uuids) || uuids.length === 0) return { does: 'skip', why: 'no volumes of other VMs are wanted' }
  const places = uuids.map(uuid => layout.directory.get(String(uuid))?.server_uuid)
  const lost = places.indexOf(undefined)
  if (lost >= 0) return { does: 'refuse', why: `there is no VM ${uuids[lost]} to take volumes from` }
  return {
    does: 'filter',
    keeps: row => places.every(place => place === row.uuid),
    why: () => 'it does not have all VMs whose volumes are wanted',
  }
}

function parsedList(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

function nicTags({ request: { nic_tags, nic_tag_requirements } }: Ask): Plan {
  const all = nic_tag_requirements ?? nic_tags?.map(tag => [tag])
  if (!all) return { does: 'skip', why: 'no NIC tags are wanted' }
  const firstLack = ({ tags }: Row) => {
    if (!tags) return 'it lists no network interfaces'
    for (const anyOf of all) {
      const lack = lacking(tags, anyOf)
      if (lack !== undefined) return lack
    }
    return undefined
  }
  return {
    does: 'filter',
    alike: 'tags',
    keeps: row => row.tags !== undefined && meets(row.tags, all),
    why: row => firstLack(row) ?? '',
  }
}

/** Stamps of SmartOS say nothing about a node of Muster, which runs another platform. */
function platformPlan(rules: { met: ReturnType<typeof atLeast>; says: string }[]): Plan {
  const unmet = (row: Row) => (row.muster ? undefined : rules.find(({ met }) => !met(row.platform)))
  return {
    does: 'filter',
    alike: 'platform',
    keeps: row => unmet(row) === undefined,
    why: row => `its platform ${row.platform.version} ${row.platform.live} is not ${unmet(row)?.says}`,
  }
}

function platforms({ package: pkg, request: { image } }: Ask): Plan {
  const asked: [PlatformMap | undefined, typeof atLeast, string][] = [
    [pkg?.min_platform, atLeast, 'at least what the package asks for'],
    [image.requirements?.min_platform, atLeast, 'at least what the image asks for'],
    [image.requirements?.max_platform, atMost, 'at most what the image asks for'],
  ]
  const rules = asked.flatMap(([map, rule, says]) =>
    map ? [{ met: rule(map), says: `${says} (${JSON.stringify(map)})` }] : [],
  )
  return rules.length === 0 ? { does: 'skip', why: 'any platform will do' } : platformPlan(rules)
}

function features({ knobs, request: { vm } }: Ask): Plan {
  const { docker, volumes } = vm
  const uses: [unknown, string | undefined, string][] = [
    [docker, knobs.filter_docker_min_platform, 'docker'],
    [docker && volumes, knobs.filter_docker_nfs_volumes_automount_min_platform, 'NFS volumes of docker'],
    [!docker && volumes, knobs.filter_non_docker_nfs_volumes_automount_min_platform, 'NFS volumes'],
    [vm.internal_metadata?.['volapi-nfs-version'] === 2, knobs.filter_volapi_nfs_v2_min_platform, 'NFS version 2'],
    [vm.flexible_disk_size, knobs.filter_flexible_disk_min_platform, 'flexible disks'],
  ]
  const rules = uses.flatMap(([used, least, feature]) =>
    used && least ? [{ met: atLeast({ '7.0': least }), says: `at least 7.0 ${least}, which ${feature} needs` }] : [],
  )
  return rules.length === 0 ? { does: 'skip', why: 'no feature needs a platform' } : platformPlan(rules)
}

function ratios(ask: Ask): Plan {
  if (!ask.package) return { does: 'skip', why: 'no package was given' }
  const names = ['cpu', 'ram', 'disk', 'io', 'net'] as const
  const shown = (ratio: number | undefined) => (ratio ? ratio.toFixed(2) : 'none')
  const differing = (row: Row) => names.find(name => shown(ask.ratios[name]) !== shown(row.ratios[name]))
  return {
    does: 'filter',
    alike: 'ratios',
    keeps: row => differing(row) === undefined,
    why: row => {
      const name = differing(row) ?? 'ram'
      return `its ${name} ratio is ${shown(row.ratios[name])}, and the package's is ${shown(ask.ratios[name])}`
    },
  }
}

function hypervisor({ hvm, request: { vm } }: Ask): Plan {
  if (!hvm) return { does: 'skip', why: 'the VM needs no hypervisor' }
  const vcpus = vm.vcpus || -1
  const problem = ({ hvm: has }: Row) => {
    if (vm.brand === 'bhyve') {
      if (!has.bhyve) return 'it cannot run bhyve'
      if (vcpus < 1 || vcpus > has.maxVcpus) return `a VM there may have 1 to ${has.maxVcpus} vcpus`
    }
    if (has.api) return undefined
    const other = vm.brand === 'bhyve' ? has.hasKvm : has.hasBhyve
    return other ? 'it runs VMs of the other hypervisor' : undefined
  }
  return {
    does: 'filter',
    alike: 'hvm',
    keeps: row => problem(row) === undefined,
    why: row => problem(row) ?? '',
  }
}

const unchecked: Plan = { does: 'skip', why: 'filter_min_resources is off' }

function ram({ knobs, request: { vm }, package: pkg, ratios: { ram: ratio }, hvm }: Ask): Plan {
  if (!knobs.filter_min_resources) return unchecked
  const wanted = vm.ram || (pkg?.max_physical_memory ?? 0)
  return enough('ram', 'MiB of RAM', { ratio, named: pkg !== undefined }, by => wanted / (hvm ? 1 : by))
}

function cpu({ knobs, request: { vm }, package: pkg, ratios: { cpu: ratio } }: Ask): Plan {
  if (!knobs.filter_min_resources) return unchecked
  const cap = vm.cpu_cap || pkg?.cpu_cap
  if (!cap) return { does: 'skip', why: 'the VM has no cpu_cap' }
  return enough('cpu', 'percent of a core', { ratio, named: pkg !== undefined }, by => cap / by)
}

function disk({ knobs, request: { vm, image }, package: pkg, ratios: { disk: ratio }, hvm }: Ask): Plan {
  if (!knobs.filter_min_resources) return unchecked
  const quota = vm.quota ? vm.quota * 1024 : (pkg?.quota ?? 0)
  if (!quota) return { does: 'skip', why: 'the VM has no quota' }
  const filesMib = Math.ceil((image.files ?? []).reduce((sum, { size }) => sum + (size ?? 0), 0) / 2 ** 20)
  const beside = filesMib + DISK_RESERVE_MIB
  const whole = hvm || image.type === 'zvol'
  const need = (by: number) => (whole ? quota + (image.image_size ?? 0) : Math.ceil(quota / by)) + beside
  return enough('disk', 'MiB of disk', { ratio, named: pkg !== undefined }, need)
}

/**
 * Enough of one dimension, for a need that depends on the overprovision ratio: the one in force, else each server's own. A package
 * without that ratio is not limited, where ratios are its own.
 */
function enough(
  name: 'ram' | 'cpu' | 'disk',
  unit: string,
  pkg: { ratio: number | undefined; named: boolean },
  needBy: (ratio: number) => number,
): Plan {
  const says = (row: Row, need: number) => `it has ${row.spare[name]} ${unit} left, and ${need} are wanted`
  if (pkg.ratio) {
    const need = needBy(pkg.ratio)
    return { does: 'limit', column: name, atLeast: need, why: row => says(row, need) }
  }
  if (pkg.named) {
    const why = (row: Row) => `its ${name} ratio is ${row.ratios[name]}, and the package has none`
    return { does: 'filter', alike: 'ratios', keeps: row => !row.ratios[name], why }
  }
  const needOn = (row: Row) => needBy(row.ratios[name] || 1)
  return { does: 'filter', keeps: row => row.spare[name] >= needOn(row), why: row => says(row, needOn(row)) }
}
