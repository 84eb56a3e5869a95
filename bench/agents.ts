/** Agents that do every task at once and well, so that what is measured is the control plane and not a hypervisor. */
import type { TASKS } from '../actors/contract/task.ts'
import type { NatsConnection } from '../services/nats/connect.ts'
import { decode, encode } from '../services/nats/json.ts'
import { request } from '../services/nats/request.ts'
import { parseAgent, pattern, subject } from '../services/nats/subjects.ts'

/** Answers the offers to all nodes; returns how many tasks were ended so far, and what went wrong. */
export function instantAgents(nc: NatsConnection): { ended(): number; problem(): unknown } {
  let ended = 0
  let problem: unknown
  nc.subscribe(pattern.agents(), {
    callback: (error, message) => {
      if (error || parseAgent(message.subject) !== 'task') return
      const serverUuid = message.subject.split('.')[1] ?? ''
      const offer = decode(message.data) as { id: string; task: keyof typeof TASKS; params: { uuid?: string } }
      message.respond(encode({ value: { accepted: true } }))
      carryOut(serverUuid, offer).then(
        () => {
          ended += 1
        },
        reason => {
          problem ??= reason
        },
      )
    },
  })

  const carryOut = async (
    serverUuid: string,
    { id, task, params }: { id: string; task: string; params: { uuid?: string } },
  ) => {
    const state = task === 'machine_boot' ? 'running' : 'stopped'
    const ending = { status: 'complete', result: { vm: { uuid: params.uuid, state } } }
    for (const report of [{ status: 'accepted' }, ending]) {
      const body = { id, at: Date.now(), ...report }
      const reply = await request(nc, subject.agentCall(serverUuid, 'report'), body, { deadlineMs: 15_000 })
      if ('error' in reply) throw new Error(`a report was refused: ${reply.error.code}: ${reply.error.message}`)
    }
  }
  return { ended: () => ended, problem: () => problem }
}
