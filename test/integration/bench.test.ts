/** `npm run bench` keeps its manners: one table, nothing left behind, also when it is interrupted. Figures are not judged here. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import { projectDir } from '../../scripts/config.ts'
import { eventually } from '../eventually.ts'
import { suite } from '../suite.ts'

const test = suite('bench')
/** Everything that a run starts inherits this as TMPDIR, which tells it from all else on the machine. */
const folder = mkdtempSync(join(tmpdir(), 'muster-bench-'))
test.after(() => rmSync(folder, { recursive: true, force: true }))

test(
  'a measure prints one table to stdout, exits with 0 and leaves neither a process nor a file',
  async () => {
    const run = bench('host-start', '--short')
    assert.is(await run.ended, 0, run.stderr())
    assert.match(
      run.stdout(),
      /^measure +figure +against its aim +detail\n-+\nhost-start +others used .*\n {2}start with 10,000 VMs/,
    )
    assert.match(run.stdout(), /aim [\d.]+ s +(PASS|MISS) /)
    assert.not.match(run.stdout(), 'broke')
    assert.equal(leftovers(), { processes: [], files: [] })
  },
  { limitMs: 120_000 },
)

test(
  'an interrupted run stops everything that it started',
  async () => {
    const run = bench('commands', '--short')
    await eventually(() => leftovers().processes.length >= 3, { withinMs: 30_000, what: 'servers of the run' })
    run.child.kill('SIGINT')
    assert.is(await run.ended, 130, run.stderr())
    assert.is(run.stdout(), '')
    assert.equal(leftovers(), { processes: [], files: [] })
  },
  { limitMs: 120_000 },
)

test('a measure that does not exist is refused with the names of those that do', async () => {
  const run = bench('nothing')
  assert.is(await run.ended, 2)
  assert.match(run.stderr(), /no measure nothing; there are commands, rest, heartbeats, host-start, ended-tasks/)
})

test.run()

function bench(...args: string[]) {
  const child = spawn(process.execPath, ['--import', 'tsx', join(projectDir, 'bench/run.ts'), ...args], {
    env: { ...process.env, TMPDIR: folder },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const said = { stdout: '', stderr: '' }
  child.stdout.on('data', chunk => {
    said.stdout += chunk
  })
  child.stderr.on('data', chunk => {
    said.stderr += chunk
  })
  const ended = once(child, 'close').then(([code]) => code as number | null)
  return { child, ended, stdout: () => said.stdout, stderr: () => said.stderr }
}

/** Processes of the run other than itself, and what lies in its temporary folder (tsx keeps a cache there). */
function leftovers(): { processes: string[]; files: string[] } {
  const processes = readdirSync('/proc').flatMap(pid => {
    try {
      if (!readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0').includes(`TMPDIR=${folder}`)) return []
      const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ')
      return command.includes('bench/run.ts') || command === '' ? [] : [command]
    } catch {
      return []
    }
  })
  return { processes, files: readdirSync(folder).filter(name => !name.startsWith('tsx-')) }
}
