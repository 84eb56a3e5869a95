/**
 * `npm run bench`: measures Muster on this machine and prints one table to stdout; progress goes to stderr, files to nowhere.
 * `npm run bench -- <name> ...` runs only these measures; `--short` shows in seconds that they run, not how fast.
 * A missed aim is marked in the table and is no failure: the exit code is 1 only when something broke.
 */
import { commands } from './commands.ts'
import { create } from './create.ts'
import { endedTasks } from './ended-tasks.ts'
import { heartbeats } from './heartbeats.ts'
import { hostStart } from './host-start.ts'
import { watchOthers } from './machine.ts'
import { placement } from './placement.ts'
import { rest } from './rest.ts'
import { openScope, type Scope } from './scope.ts'
import { type Row, type Section, seconds, table } from './table.ts'
import { waitlist } from './waitlist.ts'

type Measure = (scope: Scope) => Promise<Row[]>

const MEASURES: Record<string, Measure> = {
  commands,
  rest,
  heartbeats,
  'host-start': hostStart,
  'ended-tasks': endedTasks,
  placement,
  waitlist,
  create,
}

const names = process.argv.slice(2).filter(word => word !== '--short')
const short = process.argv.includes('--short')
const unknown = names.filter(name => !Object.hasOwn(MEASURES, name))
if (unknown.length > 0) {
  console.error(`bench: no measure ${unknown.join(', ')}; there are ${Object.keys(MEASURES).join(', ')}`)
  process.exit(2)
}

const say = (text: string) => console.error(text)
const sections: Section[] = []
let open: Scope | undefined
let broken = false

/** Set once the run is being stopped; never resolves, since the process ends first. */
let stopping: Promise<never> | undefined
const end = (why: unknown, code: number) => {
  stopping ??= (async () => {
    say(`bench: stopping what was started (${why})`)
    await open?.close()
    process.exit(code)
  })()
}
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => end(signal, 130))
process.on('uncaughtException', error => end(error.stack, 1))

for (const [name, measure] of Object.entries(MEASURES)) {
  if (names.length > 0 && !names.includes(name)) continue
  const scope = openScope({ say: text => say(`${name}: ${text}`), short })
  open = scope
  const began = performance.now()
  const others = watchOthers()
  const section: Section = { name, rows: [] }
  sections.push(section)
  try {
    section.rows = await measure(scope)
  } catch (error) {
    await stopping
    broken = true
    section.rows = [{ what: 'broke', figure: '', detail: (error as Error).message.split('\n')[0] ?? '' }]
    console.error(error)
  } finally {
    await scope.close()
    await stopping
    section.note = others()
  }
  say(`${name}: took ${seconds(performance.now() - began)}`)
}
for (const line of table(sections)) console.log(line)
if (short) console.log('--short: these figures mean nothing')
process.exit(broken ? 1 : 0)
