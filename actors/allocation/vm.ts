/** A VM as CNAPI and its neighbours show it, made into what placement keeps of it. */
import type { FleetVm } from './fleet.ts'

export interface DocumentVm {
  uuid: string
  owner_uuid: string
  brand: string
  state: string
  max_physical_memory: number
  cpu_cap?: number | null
  quota?: number
  alias?: string
  tags?: Record<string, unknown>
  docker?: boolean
  internal_metadata?: Record<string, unknown>
}

/** VMs in these states are no load: of one being provisioned its ticket is. */
const UNLOADED = ['failed', 'destroyed', 'provisioning']
/** VMs in these states cannot be meant by an affinity rule. */
const GONE = ['failed', 'destroyed']

/** Undefined for a VM that is gone and therefore neither load nor anybody's neighbour. */
export function vmOf(vm: DocumentVm, server_uuid: string): FleetVm | undefined {
  if (GONE.includes(vm.state)) return undefined
  const { uuid, owner_uuid, brand, max_physical_memory, cpu_cap, quota, alias, tags, docker } = vm
  const id = vm.internal_metadata?.['docker:id']
  return {
    uuid,
    server_uuid,
    owner_uuid,
    brand,
    counts: !UNLOADED.includes(vm.state),
    max_physical_memory,
    cpu_cap: cpu_cap ?? undefined,
    quota,
    alias,
    tags,
    docker,
    docker_id: typeof id === 'string' ? id : undefined,
  }
}
