/** Two small actor kinds whose arithmetic shows every lost and every doubled command: counters (in bucket vm) and ledgers (in bucket cn). */
import * as v from 'valibot'
import { assign, createMachine } from 'xstate'
import type { ActorKind, ActorKinds } from '../../actors/actors.ts'
import { effect } from '../../actors/effects.ts'

interface Counter {
  id: string
  total: number
  rung: number
}

type CounterEvent =
  | { type: 'add'; n: number; at: number }
  | { type: 'transfer'; to: string; n: number; at: number }
  | { type: 'later'; name: string; ms: number; at: number }
  | { type: 'ring'; at: number }
  | { type: 'body'; key: string; at: number }
  | { type: 'refused'; at: number }

const replyTotal = effect('reply_total', (context: Counter) => [{ type: 'reply', value: { total: context.total } }])

const counter = createMachine({
  types: {} as { context: Counter; events: CounterEvent; input: { id: string } },
  id: 'counter',
  context: ({ input }) => ({ id: input?.id ?? '', total: 0, rung: 0 }),
  initial: 'on',
  states: {
    on: {
      on: {
        add: { actions: [assign({ total: ({ context, event }) => context.total + event.n }), replyTotal] },
        transfer: {
          actions: [
            assign({ total: ({ context, event }) => context.total + event.n }),
            replyTotal,
            effect('note', (_context: Counter, event: Extract<CounterEvent, { type: 'transfer' }>) => [
              { type: 'send', kind: 'cn', id: event.to, verb: 'note', params: { n: event.n }, before_reply: true },
            ]),
          ],
        },
        later: {
          actions: [
            replyTotal,
            effect('set', (_context: Counter, event: Extract<CounterEvent, { type: 'later' }>) => [
              { type: 'set_timer', name: event.name, at: event.at + event.ms, event: { type: 'ring' } },
            ]),
          ],
        },
        ring: { actions: assign({ rung: ({ context }) => context.rung + 1 }) },
        body: {
          actions: [
            assign({ total: ({ context }) => context.total + 1 }),
            replyTotal,
            effect('write', (_context: Counter, event: Extract<CounterEvent, { type: 'body' }>) => [
              { type: 'create', bucket: 'task', key: event.key, value: { status: 'active' } },
            ]),
          ],
        },
        refused: { actions: assign({ total: ({ context }) => context.total - 1 }) },
      },
    },
  },
})

const ledger = createMachine({
  types: {} as { context: { total: number }; events: { type: 'note'; n: number; at: number } },
  id: 'ledger',
  context: { total: 0 },
  initial: 'on',
  states: {
    on: {
      on: {
        note: [
          {
            guard: ({ event }) => event.n > 100,
            actions: effect('refuse', () => [
              { type: 'reject', rejection: { code: 'InvalidArgument', message: 'more than a ledger takes' } },
            ]),
          },
          {
            actions: [
              assign({ total: ({ context, event }) => context.total + event.n }),
              effect('noted', () => [{ type: 'reply', value: {} }]),
            ],
          },
        ],
      },
    },
  },
})

const n = v.number()
const none = v.object({})
const verb = (params: v.GenericSchema) => ({ params, value: v.unknown() })
const kind = (machine: unknown, verbs: Record<string, ReturnType<typeof verb>>) =>
  ({
    machine,
    version: 1,
    migrate: (snapshot: unknown) => snapshot,
    verbs,
    status: (state: string) => state,
  }) as unknown as ActorKind

export const COUNTERS: ActorKinds = {
  vm: kind(counter, {
    add: verb(v.object({ n })),
    transfer: verb(v.object({ to: v.string(), n })),
    later: verb(v.object({ name: v.string(), ms: n })),
    body: verb(v.object({ key: v.string() })),
    get: verb(none),
  }),
  cn: kind(ledger, { note: verb(v.object({ n })), get: verb(none) }),
}
