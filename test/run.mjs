// Guarded test runner: uvu alone can exit 0 on failures, so each file runs in its own process group with a time limit,
// and passes only if it exits 0, prints a summary, ran at least one test, and passed or skipped-with-reason every one.
// Usage: node test/run.mjs [--jobs N] [folder or file ...]      (default: unit, integration, system)
// Ends with the line `N passed, N failed` or `N passed, N failed, N skipped`.
import { spawn } from 'node:child_process'
import { readdirSync, statSync } from 'node:fs'
import { join, relative } from 'node:path'

const root = new URL('..', import.meta.url).pathname
const limitsMs = { unit: 120_000, integration: 300_000, system: 1_200_000 }
const args = process.argv.slice(2)
const jobsAt = args.indexOf('--jobs')
const jobs = jobsAt < 0 ? 2 : Number(args.splice(jobsAt, 2)[1])
const folders = ['test/unit', 'hypervisor-agent/node-libvirt/test', 'test/integration', 'test/system']
const targets = args.length ? args : folders.map(folder => join(root, folder))
const files = targets.flatMap(target => testFiles(target))

const totals = { passed: 0, failed: 0, skipped: 0 }
const reasons = []
const failures = []

// Files that measure time, own ports of the host or start guests run alone; the others share the cores.
const alone = files.filter(file => kind(file) === 'system' || file.includes('.alone.test.'))
const together = files.filter(file => !alone.includes(file))
await drain(together, jobs)
await drain(alone, 1)

for (const reason of reasons) console.log(reason)
for (const failure of failures) console.log(`FAILED ${failure}`)
if (files.length === 0) {
  console.log('no test file found')
  process.exitCode = 1
}
if (totals.failed > 0) process.exitCode = 1
console.log(`${totals.passed} passed, ${totals.failed} failed${totals.skipped ? `, ${totals.skipped} skipped` : ''}`)

async function drain(queue, width) {
  const rest = [...queue]
  await Promise.all(
    Array.from({ length: width }, async () => {
      for (let file = rest.shift(); file; file = rest.shift()) await run(file)
    }),
  )
}

function kind(file) {
  if (file.includes('/system/')) return 'system'
  if (file.includes('/integration/')) return 'integration'
  return 'unit'
}

function testFiles(target) {
  let entry
  try {
    entry = statSync(target)
  } catch {
    return []
  }
  if (entry.isFile()) return [target]
  return readdirSync(target, { recursive: true })
    .filter(name => name.endsWith('.test.ts'))
    .sort()
    .map(name => join(target, name))
}

async function run(file) {
  const started = performance.now()
  const child = spawn(process.execPath, ['--import', 'tsx', file], {
    cwd: root,
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, NO_COLOR: '1', FORCE_COLOR: '0', NODE_DISABLE_COLORS: '1' },
  })
  let output = ''
  child.stdout.on('data', chunk => {
    output += chunk
  })
  child.stderr.on('data', chunk => {
    output += chunk
  })
  let summarised
  const summary = new Promise(resolve => {
    summarised = setInterval(() => /Skipped:\s+\d+/.test(output) && resolve('summary'), 100)
  })
  let late
  const limit = new Promise(resolve => {
    late = setTimeout(() => resolve('limit'), limitsMs[kind(file)])
  })
  const ended = new Promise(resolve => child.on('close', code => resolve(code ?? 1)))
  let end = await Promise.race([ended, limit, summary])
  // A suite that has printed its summary gets a moment to close what it opened; a handle left open is a failure.
  if (end === 'summary') {
    clearTimeout(late)
    end = await Promise.race([ended, new Promise(resolve => setTimeout(() => resolve('open handle'), 5_000).unref())])
  }
  clearInterval(summarised)
  clearTimeout(late)
  try {
    process.kill(-child.pid, 'SIGKILL')
  } catch {}

  // The last summary is the file's own: a test may print the output of another run.
  const sum = word => Number([...output.matchAll(new RegExp(`${word}:\\s+(\\d+)`, 'g'))].at(-1)?.[1] ?? 0)
  const total = sum('Total')
  const passed = sum('Passed')
  const skipped = sum('Skipped')
  const told = [...output.matchAll(/^SKIP .*$/gm)].map(match => match[0])
  let failed = total - passed
  let why = ''
  if (end === 'limit') why = `did not end within ${limitsMs[kind(file)]} ms`
  else if (end === 'open handle') why = 'left a handle open'
  else if (end !== 0) why = `exit code ${end}`
  else if (output.includes('SUITE BROKEN')) why = 'an after hook failed'
  else if (total + skipped === 0) why = 'ran no test'
  else if (skipped > told.length) why = 'skipped without a reason'
  if (why && failed === 0) failed = 1
  totals.passed += passed
  totals.failed += failed
  totals.skipped += skipped
  reasons.push(...told)
  const name = relative(root, file)
  const seconds = ((performance.now() - started) / 1000).toFixed(1)
  console.log(
    `${failed ? 'FAIL' : 'ok  '} ${name}: ${passed} passed, ${failed} failed, ${skipped} skipped (${seconds} s)${why ? `: ${why}` : ''}`,
  )
  for (const [figures] of output.matchAll(/^FIGURES .*$/gm)) console.log(`     ${figures}`)
  if (failed) {
    failures.push(name)
    console.log(output.replace(/^/gm, '    '))
  }
}
