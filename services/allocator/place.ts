/**
 * Placement as a service: decides on everything acknowledged so far, and claims the place where that is asked for. The node's actor takes
 * no claim that was decided without knowing all others; then the next best is tried. Claims under way count at once in this process, so
 * that requests that come together are spread without waiting for each other.
 */
import { randomUUID } from 'node:crypto'
import { type Decision, decide } from '../../actors/allocation/decide.ts'
import { refusalOf } from '../../actors/allocation/explain.ts'
import type { Knobs, Request } from '../../actors/allocation/fleet.ts'
import { isHvm } from '../../actors/allocation/fleet.ts'
import type { AllocationQuestion, ToldDecision } from '../../actors/contract/allocation.ts'
import { type Rejection, rejection } from '../../actors/contract/errors.ts'
import type { Claim } from '../../actors/contract/server.ts'
import type { ClaimLanes } from './claim-lanes.ts'
import type { Decisions } from './decisions.ts'
import type { Fleet } from './fleet.ts'
import { capOf } from './server.ts'
import { told } from './told.ts'

export type Placed = { value: ToldDecision } | { error: Rejection; decision?: ToldDecision }

/** A question after its checks. */
export type Question = Omit<AllocationQuestion, 'vm' | 'package' | 'image'> &
  Request & { vm: { vm_uuid?: string | undefined } }

export interface PlaceParts {
  fleet: Fleet
  knobs: Knobs
  lanes: ClaimLanes
  decisions: Decisions
  now: () => number
  /** The seed of a decision's chance. */
  chance: () => number
  /** Told of what no answer waits for. */
  failed: (error: unknown) => void
}

/** Servers tried for one request before it is given up. */
const TRIES_MAX = 64

export function createPlace({
  fleet,
  knobs,
  lanes,
  decisions,
  now,
  chance,
  failed,
}: PlaceParts): (question: Question) => Promise<Placed> {
  const ask = (question: Question): { decision: Decision; id: string } => {
    const request = requestOf(question)
    const only = question.servers && new Set(question.servers.map(uuid => uuid.toLowerCase()))
    const decision = decide(fleet.index.layout(), { request, seed: chance(), only }, knobs)
    return { decision, id: decisions.keep(question, decision) }
  }
  const answer = ({ decision, id }: { decision: Decision; id: string }, question: Question): Placed => {
    const value = told(id, decision, question.steps)
    if (decision.server) return { value }
    return {
      error: rejection('NoAllocatableServersError', `No compute resources available: ${refusalOf(decision)}`),
      decision: value,
    }
  }

  /**
   * From here on a claim counts as the views have it. Where they cannot be brought up to now it no longer counts here either: nothing is
   * decided before they are, and its node takes no claim from one who does not know it.
   */
  const settled = (server: string, claimId: string) => fleet.barrier().finally(() => fleet.settle(server, claimId))

  return async question => {
    await fleet.barrier()
    const { claim_ms: holdMs } = question
    if (holdMs === undefined) return answer(ask(question), question)
    for (let tries = 0; ; tries += 1) {
      const asked = ask(question)
      const { server } = asked.decision
      if (!server) return answer(asked, question)
      const claimId = randomUUID()
      const held = claimOf(question, now() + holdMs)
      // Both at once, before anything else is decided here: what comes next knows of this claim, and its own waits for this one's end.
      fleet.hold(server.uuid, claimId, held)
      const refused = await lanes.claim(server.uuid, claimId, held)
      if (!refused) {
        settled(server.uuid, claimId).catch(failed)
        const placed = answer(asked, question)
        if ('value' in placed) placed.value.claim = { id: claimId, expires_at: new Date(held.until).toISOString() }
        return placed
      }
      await settled(server.uuid, claimId)
      if (tries + 1 >= TRIES_MAX) return { error: refused }
    }
  }
}

/** What has no cap can still not use more than its vcpus, where it becomes a domain. */
function requestOf({ vm, package: pkg, image, nic_tags, nic_tag_requirements }: Question): Request {
  const capless = !vm.cpu_cap && !pkg?.cpu_cap && isHvm(vm.brand)
  return {
    vm: capless ? { ...vm, cpu_cap: capOf(vm) } : vm,
    package: pkg,
    image: image ?? {},
    nic_tags,
    nic_tag_requirements,
  }
}

function claimOf({ vm, package: pkg }: Question, until: number): Claim {
  const { owner_uuid, brand = '', quota } = vm
  return {
    vm_uuid: vm.vm_uuid ?? randomUUID(),
    owner_uuid,
    brand,
    ram: vm.ram || (pkg?.max_physical_memory ?? 0),
    ...(vm.cpu_cap || pkg?.cpu_cap || isHvm(brand) ? { cpu_cap: vm.cpu_cap || pkg?.cpu_cap || capOf(vm) } : {}),
    ...(quota === undefined ? {} : { quota }),
    until,
  }
}
