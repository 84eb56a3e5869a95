/** Muster itself: what it is, whether it works, the statecharts its actors run. */
import * as v from 'valibot'
import { rejection } from '../../actors/contract/errors.ts'
import { VERBS } from '../../actors/contract/verbs.ts'
import { row } from '../row.ts'

export const MERMAID_TYPE = 'text/vnd.mermaid'

const state = v.picklist(['online', 'offline'])
const link = v.object({ kind: v.string(), href: v.string() })

export const serviceRows = (version: string) => [
  row({
    method: 'GET',
    path: '/',
    name: 'Help',
    summary: 'What answers here, and where to look next.',
    gate: 'G0',
    strict: false,
    params: {},
    success: {
      status: 200,
      description: 'Name, version and links',
      body: v.object({ name: v.string(), version: v.string(), links: v.record(v.string(), v.string()) }),
    },
    errors: [],
    handle: () => ({ status: 200, body: { name: 'Muster', version, links } }),
  }),
  row({
    method: 'GET',
    path: '/ping',
    name: 'Ping',
    summary: 'Whether requests can be served. All of CNAPI\u2019s services are NATS here.',
    gate: 'G0',
    strict: false,
    params: {},
    success: {
      status: 200,
      description: 'Readiness',
      body: v.object({ ready: v.boolean(), services: v.object({ workflow: state, moray: state, amqp: state }) }),
    },
    errors: [],
    handle: (_, backend) => {
      const ready = backend.connected()
      const word = ready ? 'online' : 'offline'
      return { status: 200, body: { ready, services: { workflow: word, moray: word, amqp: word } } }
    },
  }),
  row({
    method: 'GET',
    path: '/machines',
    name: 'MachineList',
    summary: 'The kinds of actors and where their statecharts are.',
    gate: 'G0',
    strict: false,
    params: {},
    success: { status: 200, description: 'Kinds', body: v.array(link) },
    errors: [],
    handle: () => ({ status: 200, body: kinds.map(kind => ({ kind, href: `/machines/${kind}` })) }),
  }),
  row({
    method: 'GET',
    path: '/machines/:kind',
    name: 'MachineGet',
    summary: 'The statechart of a kind as the actor hosts run it: JSON, or Mermaid by Accept or ?format=mermaid.',
    gate: 'G0',
    strict: false,
    params: { format: v.optional(v.picklist(['json', 'mermaid'], "value was not 'json' or 'mermaid'")) },
    success: { status: 200, description: 'Statechart', body: v.looseObject({}) },
    errors: ['ResourceNotFound'],
    types: [MERMAID_TYPE],
    handle: async ({ all, params, accepted }, backend) => {
      const kind = String(all['kind'])
      if (!kinds.includes(kind)) return { error: rejection('ResourceNotFound', `no machine ${kind}`) }
      const outcome = await backend.machine(kind)
      if ('error' in outcome) return outcome
      const { mermaid, ...chart } = outcome.value
      const wanted = params.format ?? (accepted === MERMAID_TYPE ? 'mermaid' : 'json')
      if (wanted === 'mermaid') return { status: 200, type: `${MERMAID_TYPE}; charset=utf-8`, body: mermaid }
      return { status: 200, body: chart }
    },
  }),
]

const kinds = Object.keys(VERBS)

const links = {
  openapi: '/openapi.json',
  ping: '/ping',
  servers: '/servers?extras=all',
  hosts: '/hosts',
  networks: '/networks',
  machines: '/machines',
  events: '/events',
}
