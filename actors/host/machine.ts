/**
 * The machine of a hostname in the compute agent's API: the compute node it is bound to, its VM and networks. Every change below
 * `/host/<name>` passes through it, so two concurrent creates bind once.
 *
 *   free --create/network_create--> bound --vm_gone, nothing left; forget--> free --24 h--> forgotten
 *
 * Surprising: a binding outlives its VM while networks were made through it, so that a re-created host finds them.
 */
import { setup } from 'xstate'
import { type Rejection, rejection } from '../contract/errors.ts'
import type { HostContext } from '../contract/host.ts'
import type { VerbParams } from '../contract/verbs.ts'
import { type Effect, effect, type Refused, type Stamp } from '../effects.ts'

type Of<V extends 'create' | 'network_create' | 'start' | 'destroy' | 'vm_gone' | 'vm_moved' | 'forget'> = Stamp & {
  type: V
} & VerbParams<'host', V>
export type HostEvent =
  | Of<'create'>
  | Of<'network_create'>
  | Of<'start'>
  | Of<'destroy'>
  | Of<'vm_gone'>
  | Of<'vm_moved'>
  | Of<'forget'>
  | Refused
interface Args {
  context: HostContext
  event: HostEvent
}

/** As long as repeats of what bound it may come. */
const FORGET_AFTER_MS = 24 * 3600_000

const states = setup({
  types: { context: {} as HostContext, events: {} as HostEvent, input: {} as { id: string } },
  actions: { askForVm: noted, askForNetwork: noted, passOn: noted, refuse: noted, done: noted },
  guards: {
    isElsewhere: ({ context, event }) =>
      (event.type === 'create' || event.type === 'network_create') &&
      event.server_named === true &&
      context.server_uuid !== null &&
      context.server_uuid !== event.server_uuid,
    hasVm: ({ context }) => context.vm_uuid !== null,
    hadOnlyThisVm: ({ context, event }) => lostVm(context, event) && context.networks.length === 0,
    lostVm: ({ context, event }) => lostVm(context, event),
    isVm: ({ context, event }) => event.type === 'vm_moved' && event.vm_uuid === context.vm_uuid,
    lostServer: ({ context, event }) => event.type === 'forget' && event.server_uuid === context.server_uuid,
  },
  delays: { forgetAfter: FORGET_AFTER_MS },
})

const bind = states.assign(({ context, event }: Args) => {
  if (event.type !== 'create' && event.type !== 'network_create') return {}
  return { hostname: event.hostname, server_uuid: context.server_uuid ?? event.server_uuid }
})
const takeVm = states.assign(({ event }: Args) => (event.type === 'create' ? { vm_uuid: event.spec.uuid } : {}))
const takeNetwork = states.assign(({ context, event }: Args) => {
  if (event.type !== 'network_create' || context.networks.includes(event.name)) return {}
  return { networks: [...context.networks, event.name] }
})
const follow = states.assign(({ event }: Args) => (event.type === 'vm_moved' ? { server_uuid: event.server_uuid } : {}))
const loseVm = states.assign({ vm_uuid: null })
const unbind = states.assign({ vm_uuid: null, server_uuid: null })
const unbindAll = states.assign({ vm_uuid: null, server_uuid: null, networks: [] })

const refuse = (make: (context: HostContext) => Rejection) => ({
  actions: [effect('refuse', (context: HostContext): Effect[] => [{ type: 'reject', rejection: make(context) }])],
})
const elsewhere = {
  guard: 'isElsewhere' as const,
  ...refuse(context => rejection('InvalidArgument', `the host is bound to server ${context.server_uuid}`)),
}
const network = { target: 'bound' as const, actions: [bind, takeNetwork, effect('askForNetwork', askForNetwork)] }
const create = { target: 'bound' as const, actions: [bind, takeVm, effect('askForVm', askForVm)] }
const noVm = refuse(() => rejection('VmNotFound'))
const passOnOrRefuse = [{ guard: 'hasVm' as const, actions: [effect('passOn', passOn)] }, noVm]
const done = effect('done', (): Effect[] => [{ type: 'reply', value: {} }])
const lost = [
  { guard: 'hadOnlyThisVm' as const, target: 'free', actions: [unbind, done] },
  { guard: 'lostVm' as const, actions: [loseVm, done] },
  { actions: [done] },
]

export const hostMachine = states.createMachine({
  id: 'host',
  options: { maxIterations: 1000 },
  context: ({ input }) => ({ key: input?.id ?? '', hostname: '', server_uuid: null, vm_uuid: null, networks: [] }),
  initial: 'free',
  states: {
    free: {
      on: {
        create,
        network_create: network,
        start: noVm,
        destroy: noVm,
        vm_gone: { actions: [done] },
        vm_moved: { actions: [done] },
        forget: { actions: [done] },
      },
      after: { forgetAfter: 'forgotten' },
    },
    forgotten: { type: 'final' },
    bound: {
      on: {
        create: [elsewhere, { guard: 'hasVm', ...refuse(() => rejection('HostExists')) }, create],
        network_create: [elsewhere, network],
        start: passOnOrRefuse,
        destroy: passOnOrRefuse,
        vm_gone: lost,
        vm_moved: [{ guard: 'isVm' as const, actions: [follow, done] }, { actions: [done] }],
        forget: [{ guard: 'lostServer', target: 'free', actions: [unbindAll, done] }, { actions: [done] }],
        // The VM was refused by its own actor: it never came to be.
        refused: lost,
      },
    },
  },
})

function askForVm(context: HostContext, event: HostEvent): Effect[] {
  if (event.type !== 'create') return []
  const server_uuid = context.server_uuid as string
  const { uuid } = event.spec
  return [
    {
      type: 'send',
      kind: 'vm',
      id: uuid,
      verb: 'create',
      before_reply: true,
      req_id: event.req_id,
      params: { server_uuid, task_id: event.task_id, spec: event.spec, host_key: context.key },
    },
    { type: 'reply', value: { id: event.task_id, vm_uuid: uuid, server_uuid } },
  ]
}

function askForNetwork(context: HostContext, event: HostEvent): Effect[] {
  if (event.type !== 'network_create') return []
  const server_uuid = context.server_uuid as string
  const { name, bridge, vlan } = event
  return [
    {
      type: 'send',
      kind: 'cn',
      id: server_uuid,
      verb: 'task_add',
      before_reply: true,
      req_id: event.req_id,
      params: { task_id: event.task_id, task: 'network_create', params: { name, bridge, vlan } },
    },
    { type: 'reply', value: { id: event.task_id, server_uuid } },
  ]
}

function passOn(context: HostContext, event: HostEvent): Effect[] {
  if (event.type !== 'start' && event.type !== 'destroy') return []
  const { task_id, params } = event
  return [
    {
      type: 'send',
      kind: 'vm',
      id: context.vm_uuid as string,
      verb: event.type,
      before_reply: true,
      req_id: event.req_id,
      params: { task_id, params: params ?? {} },
    },
    { type: 'reply', value: { id: task_id } },
  ]
}

function lostVm(context: HostContext, event: HostEvent): boolean {
  if (event.type === 'vm_gone') return event.vm_uuid === context.vm_uuid
  if (event.type !== 'refused' || event.verb !== 'create') return false
  const spec = event.params['spec']
  return typeof spec === 'object' && spec !== null && 'uuid' in spec && spec.uuid === context.vm_uuid
}

function noted(_: unknown, _params: { effects: Effect[] }): void {}
