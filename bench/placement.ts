/** Time of one placement decision, alone in this process: generated fleets of 100, 1,000 and 10,000 servers with 20 VMs each. */
import { decide } from '../actors/allocation/decide.ts'
import { indexOf, knobsOf } from '../actors/allocation/document.ts'
import { KNOBS } from '../actors/allocation/fleet.ts'
import { generate } from '../test/samples/allocation/fleet-gen.mjs'
import type { Scope } from './scope.ts'
import { perSecond, type Row, whole } from './table.ts'

const requests = 300
/** Half of all decisions must be quicker than this, ms. */
const AIMS: Record<number, number | undefined> = { 1000: 0.1, 10000: 1 }

export async function placement(scope: Scope): Promise<Row[]> {
  const sizes = scope.short ? [100] : [100, 1_000, 10_000]
  return sizes.flatMap(servers => measure(servers, scope))
}

function measure(servers: number, { say, short }: Scope): Row[] {
  say(`a fleet of ${servers}`)
  const document = generate({ servers, vms: 20, requests, seed: 9 })
  const knobs = { ...knobsOf(document), weight_uniform_random: KNOBS.weight_uniform_random }
  const began = performance.now()
  const index = indexOf(document, knobs)
  const layout = index.layout()
  const builtMs = performance.now() - began
  const rounds = short ? 1 : 10
  const times: number[] = []
  let placed = 0
  const cpu = process.cpuUsage()
  for (let turn = 0; turn < rounds * requests; turn += 1) {
    const request = document.requests[turn % requests]!
    const asked = performance.now()
    if (decide(layout, { request, seed: turn }, knobs).server) placed += 1
    // The first round is for the compiler.
    if (turn >= requests || short) times.push(performance.now() - asked)
  }
  const { user, system } = process.cpuUsage(cpu)
  if (placed === 0) throw new Error('no request found a server')
  times.sort((a, b) => a - b)
  const ms = (share: number) => times[Math.floor(share * (times.length - 1))] ?? Number.NaN
  const changedMs = changing(index, document, short ? 10 : 500)
  const aim = AIMS[servers]
  return [
    {
      what: `decision, ${whole(servers)} servers`,
      figure: `p50 ${ms(0.5).toFixed(3)} ms`,
      detail: `p99 ${ms(0.99).toFixed(3)} ms, least ${ms(0).toFixed(3)} ms, ${perSecond((1000 * rounds * requests) / ((user + system) / 1000))} of one core`,
      ...(aim === undefined ? {} : { aim: { text: `under ${aim} ms`, met: ms(0.5) < aim } }),
    },
    {
      what: `layout, ${whole(servers)} servers`,
      figure: `${builtMs.toFixed(0)} ms afresh`,
      detail: `${changedMs.toFixed(3)} ms after one VM has changed`,
    },
  ]
}

/** Mean time to take in one changed VM, ms. */
function changing(index: ReturnType<typeof indexOf>, { servers }: ReturnType<typeof generate>, turns: number): number {
  const [changed] = servers.filter(({ vms }) => Object.keys(vms ?? {}).length > 0)
  const vm = Object.values(changed!.vms!)[0]!
  const { uuid, owner_uuid, brand, max_physical_memory } = vm
  const began = performance.now()
  for (let turn = 0; turn < turns; turn += 1) {
    const ram = max_physical_memory + (turn % 2)
    index.setVm(uuid, { uuid, owner_uuid, brand, server_uuid: changed!.uuid, counts: true, max_physical_memory: ram })
    index.layout()
  }
  return (performance.now() - began) / turns
}
