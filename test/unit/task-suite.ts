/**
 * How every task of the agent is tried: it works, twice equals once, and it survives a crash at each of its calls (before and after the
 * effect). A case says what is there before, what is asked, and what holds afterwards however often it was interrupted.
 */
import * as assert from 'uvu/assert'
import type { TaskOffer, TaskReport } from '../../actors/contract/messages.ts'
import type { TaskName } from '../../actors/contract/task.ts'
import type { VmSpec } from '../../actors/contract/vm.ts'
import { eventually } from '../eventually.ts'
import type { Suite } from '../suite.ts'
import { type Node, offer, simulatedNode, vmSpec } from './agent-fixture.ts'

/** What a case leaves for its checks. */
export interface Scene {
  node: Node
  spec: VmSpec
  /** What is to be closed when the scene is over. */
  closing: (() => Promise<void>)[]
}

export interface Case {
  task: TaskName
  name: string
  prepare?: (scene: Scene) => Promise<void>
  params: (scene: Scene) => Record<string, unknown>
  /** Holds after the task, however often it was interrupted. */
  check: (scene: Scene, end: TaskReport) => Promise<void>
  /** The end; default complete. */
  failure?: string
  /** An end that a crash may lead to as well: what the task was at cannot be taken up again. */
  brokenOff?: string
}

/** Registers three claims for each case. */
export function tryCases(test: Suite, cases: readonly Case[]): void {
  for (const one of cases) {
    test(`${one.task} ${one.name}`, () => scene(one, async (made, wanted) => finish(one, made, wanted)))

    test(`${one.task} ${one.name}: given twice it is done once`, () =>
      scene(one, async (made, wanted) => {
        const agent = await made.node.agent()
        const answers = await Promise.all([agent.executor.accept(wanted), agent.executor.accept(wanted)])
        for (const answer of answers) assert.equal(answer, { value: { accepted: true } })
        const end = await made.node.owner.end(wanted.id)
        await eventually(() => agent.journal.open().length === 0, { what: 'the journal being empty' })
        assert.equal(await agent.executor.accept(wanted), { value: { accepted: true } })
        // A task offered again after its end has its end told again, the same one.
        await eventually(() => made.node.owner.ends(wanted.id).length === 2, { what: 'the end being told again' })
        assert.equal(made.node.owner.ends(wanted.id)[1], end)
        holds(one, end)
        await one.check(made, end)
        await agent.kill()
      }))

    test(
      `${one.task} ${one.name}: it survives a crash at each call`,
      async () => {
        let interrupted = 0
        for (const when of ['before', 'after'] as const) {
          for (let call = 1; ; call++) {
            const reached = await scene(one, (made, wanted) => crashAt(one, made, wanted, when, call))
            if (!reached) break
            interrupted += 1
          }
        }
        // A task that makes no call has nothing to be interrupted in.
        if (!callsNothing.has(one.task) && one.failure !== 'SignalNotSupported')
          assert.ok(interrupted > 0, 'it was interrupted')
      },
      { limitMs: 60_000 },
    )
  }
}

/** Scripts are held by scripts.test.ts: one that was interrupted is not run again. */
const callsNothing = new Set<TaskName>([
  'nop',
  'recovery_config',
  'agent_install',
  'agents_uninstall',
  'server_run_script',
  'command_execute',
])

/** Gives the body a fresh node, prepared, and the task to run. */
async function scene<T>(one: Case, body: (made: Scene, wanted: TaskOffer) => Promise<T>): Promise<T> {
  const node = await simulatedNode({
    memoryMib: 8192,
    delays: { install: Number.POSITIVE_INFINITY, acpi: 2 },
    execute: {},
  })
  const made: Scene = { node, spec: vmSpec(), closing: [] }
  try {
    await one.prepare?.(made)
    return await body(made, offer(one.task, one.params(made)))
  } finally {
    for (const close of made.closing) await close()
    await node.remove()
  }
}

async function finish(one: Case, made: Scene, wanted: TaskOffer): Promise<void> {
  const agent = await made.node.agent()
  await agent.executor.accept(wanted)
  const end = await made.node.owner.end(wanted.id)
  holds(one, end)
  await one.check(made, end)
  await agent.kill()
}

/** Dies at the n-th call, comes back over the same folder, and must end as if nothing had happened. False if there is no n-th call. */
async function crashAt(
  one: Case,
  made: Scene,
  wanted: TaskOffer,
  when: 'before' | 'after',
  nth: number,
): Promise<boolean> {
  let isReached = false
  const hanging = hangingAt(when, nth, () => {
    isReached = true
  })
  const first = await made.node.agent({
    through: hanging,
    throughTools: ({ host, nicTags, resetMark, zfs, ...rest }) => ({
      ...rest,
      host: hanging(host),
      nicTags: hanging(nicTags),
      resetMark: hanging(resetMark),
      zfs: hanging(zfs),
    }),
  })
  await first.executor.accept(wanted)
  await eventually(() => isReached || made.node.owner.ends(wanted.id).length > 0, {
    what: 'the crash or the end',
    everyMs: 2,
  })
  await first.kill()
  if (isReached) {
    assert.equal(made.node.owner.ends(wanted.id), [], 'no end before the crash')
    const second = await made.node.agent()
    second.executor.resume()
    const end = await made.node.owner.end(wanted.id)
    if (!one.brokenOff || end.error?.code !== one.brokenOff) holds(one, end)
    await one.check(made, end)
    await eventually(() => second.journal.open().length === 0, { what: 'the journal being empty' })
    assert.is(made.node.owner.ends(wanted.id).length, 1)
    await second.kill()
  }
  return isReached
}

/** Makes parts of an agent whose n-th call, counted over all of them, never answers: the agent dies while it waits. */
function hangingAt(when: 'before' | 'after', nth: number, reached: () => void): <T extends object>(part: T) => T {
  let calls = 0
  const isCall = (member: unknown, name: string | symbol): member is (...args: unknown[]) => unknown =>
    typeof member === 'function' && name !== 'onChange' && name !== 'onPower' && name !== 'isSet'
  return part =>
    new Proxy(part, {
      get: (target, name, receiver) => {
        const member: unknown = Reflect.get(target, name, receiver)
        if (!isCall(member, name)) return member
        return async (...args: unknown[]) => {
          calls += 1
          if (calls !== nth) return Reflect.apply(member, target, args)
          if (when === 'after') await Promise.resolve(Reflect.apply(member, target, args)).catch(() => {})
          reached()
          return new Promise<never>(() => {})
        }
      },
    })
}

function holds(one: Case, end: TaskReport): void {
  assert.is(end.status, one.failure ? 'failure' : 'complete', JSON.stringify(end))
  assert.is(end.error?.code, one.failure)
}
