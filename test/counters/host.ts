/**
 * An actor host of counters as a process of its own, to be killed and frozen by tests. Prints one JSON line when live and one at its end.
 * `CRASH_AT=<step>:<n>:<part>` kills it (as kill -9) when it comes to that step for the n-th time with an actor that has `part` in its name.
 */
import { pino } from 'pino'
import { connectNats, serversOf } from '../../services/nats/connect.ts'
import { createDecide } from '../../services/runtime/decide.ts'
import { createRuntime } from '../../services/runtime/runtime.ts'
import { COUNTERS } from './kinds.ts'

const { NATS_URL = '', HOST_ID = 'host', CRASH_AT = '', LOG_LEVEL = 'warn', BATCHING = 'on' } = process.env
const nc = await connectNats({ servers: serversOf(NATS_URL), name: HOST_ID, inboxOwner: 'host' })
const [crashStep = '', crashCount = '1', crashPart = ''] = CRASH_AT.split(':')
let passed = 0
const runtime = createRuntime({
  nc,
  hostId: HOST_ID,
  kinds: ['cn', 'vm'],
  decide: createDecide(COUNTERS),
  log: pino({ level: LOG_LEVEL, base: { host: HOST_ID } }, pino.destination(2)),
  batching: BATCHING === 'on',
  ...(crashStep
    ? {
        step: (step: string, what: string) => {
          if (step === crashStep && what.includes(crashPart) && ++passed === Number(crashCount))
            process.kill(process.pid, 'SIGKILL')
        },
      }
    : {}),
})
process.once('SIGTERM', async () => {
  await runtime.stop()
  await nc.drain()
  console.log(JSON.stringify({ stopped: true, ...runtime.stats() }))
  process.exit(0)
})
await runtime.start()
console.log(JSON.stringify({ live: true, ...runtime.stats() }))
