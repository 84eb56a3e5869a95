/** The README's first example, word for word, against the README's own command. */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import { projectDir } from '../../scripts/config.ts'
import { freePorts } from '../nats.ts'
import { runStart, type StartRun } from '../start.ts'
import { suite } from '../suite.ts'

const test = suite('README')
const readme = readFileSync(join(projectDir, 'README.md'), 'utf8')
const folder = mkdtempSync(join(tmpdir(), 'muster-readme-'))
let run: StartRun
let port = 0

test.before(async () => {
  port = (await freePorts(1))[0] ?? 0
  const env = { PORT: String(port), DATA_DIR: join(folder, 'data'), HYPERVISOR: 'simulated' }
  run = runStart(env, { command: ['npm', 'start'] })
  await run.says('Ctrl-C stops everything', 100_000)
})
test.after(async () => {
  await run?.stop('SIGTERM')
  rmSync(folder, { recursive: true, force: true })
})

test('the first example runs as it stands, each command answering 2xx, and does what it says', () => {
  const example = /<!-- first example[^>]*-->\n```sh\n([\s\S]+?)```/.exec(readme)?.[1] ?? ''
  assert.ok(example.includes('curl'), 'the README has a first example')
  // A line feed after each answer, so that they can be told apart; the commands themselves are untouched.
  const home = join(folder, 'home')
  const { PATH } = process.env
  const env = { PATH, HOME: folder, CURL_HOME: home, PORT: String(port) }
  const script = `curl() { command curl "$@" && echo; }\n${example}`
  const ran = spawnSync('sh', ['-eu'], { input: script, env, encoding: 'utf8', timeout: 60_000 })
  assert.is(ran.status, 0, ran.stderr + ran.stdout)
  const answers = ran.stdout.split('\n').slice(0, -1)
  const commands = example.split('\n').filter(line => line.startsWith('curl'))
  assert.is(answers.length, commands.length, ran.stdout)
  for (const answer of answers) if (answer) JSON.parse(answer)
  const lists = commands.flatMap((command, at) => (/ \$URL\/hosts$/.test(command) ? [answers[at] ?? ''] : []))
  assert.match(lists[0] ?? '', 'web1.example.com', 'the host is listed after its creation')
  assert.not.match(lists.at(-1) ?? '', 'web1.example.com', 'and no more after its end')
  assert.match(answers[commands.findIndex(command => command.endsWith('/servers'))] ?? '', '"status":"running"')
})

test('what it says of npm start is what npm start reads', () => {
  const [own, file] = ['scripts/config.ts', 'services/nats/settings.ts'].map(name =>
    readFileSync(join(projectDir, name), 'utf8'),
  )
  const rows = [...readme.matchAll(/^\| `([A-Z_]+)` \|\s*([^|]*?)\s*\|/gm)].map(([, name = '', value = '']) => [
    name,
    value,
  ])
  assert.ok(rows.length >= 5)
  for (const [name = '', value = ''] of rows) {
    const reads =
      value === '' ? new RegExp(`${name}: v\\.optional\\(`) : new RegExp(`${name}: v\\.optional\\(.*'${value}'\\)`)
    // The setting that names the file of settings is read before all others.
    if (name === 'CONFIG_FILE') assert.match(file ?? '', `env['${name}']`)
    else assert.match(own ?? '', reads, `${name} defaults to ${value}`)
  }
})

test.run()
