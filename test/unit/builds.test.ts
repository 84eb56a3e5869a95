/** Builds on a node: with a program that stands in for buildah and notes what it is given. The real one is tried in test/system/docker.test.ts. */
import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import * as v from 'valibot'
import { BuildPayload } from '../../actors/contract/tasks/docker.ts'
import { buildahBuilds } from '../../hypervisor-agent/builds/buildah.ts'
import type { BuildEnd, Builds } from '../../hypervisor-agent/builds/builds.ts'
import { HypervisorError } from '../../hypervisor-agent/hypervisor.ts'
import { simulatedBuilds } from '../../hypervisor-agent/simulated/builds.ts'
import { eventually } from '../eventually.ts'
import { suite } from '../suite.ts'

const test = suite('builds on a node')
const never = new AbortController().signal
let folder = ''
test.before(() => {
  folder = mkdtempSync(join(tmpdir(), 'muster-builds-'))
})
test.after(() => rmSync(folder, { recursive: true, force: true }))

/** An archive of files, some of them links. */
function contextOf(files: Record<string, string | { link: string }>): Buffer {
  const place = mkdtempSync(join(folder, 'context-'))
  for (const [name, content] of Object.entries(files)) {
    mkdirSync(join(place, name, '..'), { recursive: true })
    if (typeof content === 'string') writeFileSync(join(place, name), content)
    else execFileSync('ln', ['-s', content.link, join(place, name)])
  }
  return execFileSync('tar', ['-C', place, '-cf', '-', '.'], { maxBuffer: 2 ** 26 })
}

async function* inPieces(archive: Buffer): AsyncGenerator<Buffer> {
  for (let at = 0; at < archive.length; at += 1000) yield archive.subarray(at, at + 1000)
}

async function build(
  builds: Builds,
  archive: Buffer,
  wish: object = {},
  signal: AbortSignal = never,
): Promise<BuildEnd & { said: string }> {
  let said = ''
  const wrote = async (_: string, data: Buffer) => {
    said += data.toString()
  }
  return { ...(await builds.build(v.parse(BuildPayload, wish), { context: inPieces(archive), wrote, signal })), said }
}

/** A program that says its arguments and does `then`. */
function standIn(then: string): string {
  const file = join(mkdtempSync(join(folder, 'program-')), 'buildah')
  writeFileSync(
    file,
    `#!/bin/bash\n[ "$1" = --version ] && exit\nfor word; do echo "<$word>"; case $word in --iidfile=*) id=\${word#*=};; esac; done\n${then}\n`,
  )
  chmodSync(file, 0o755)
  return file
}

const made = (program: string, isAllowed = true) => {
  const stateDir = mkdtempSync(join(folder, 'state-'))
  return { stateDir, builds: buildahBuilds({ stateDir, isAllowed, program }) }
}
const nothingLeft = (stateDir: string) => {
  const contexts = join(stateDir, 'builds/contexts')
  assert.equal(existsSync(contexts) ? readdirSync(contexts) : [], [])
}

async function refused(code: string, attempt: Promise<unknown>): Promise<void> {
  const error = await attempt.then(
    () => undefined,
    error => error,
  )
  assert.instance(error, HypervisorError, `refused with ${code}`)
  assert.is((error as HypervisorError).code, code)
}

test('an agent that is not configured for it builds nothing, and a node without buildah names it', async () => {
  await refused('BuildNotAllowed', made(standIn('exit 0'), false).builds.check())
  const none = made(join(folder, 'no-such-program')).builds
  await refused('BuildahNotInstalled', none.check())
  await refused('BuildahNotInstalled', build(none, contextOf({ Dockerfile: 'FROM scratch' })))
})

test('what a caller asks for becomes single arguments, and the image’s id is told', async () => {
  const { builds, stateDir } = made(standIn('cat "$word/a"; printf sha256:abc > "$id"'))
  const wish = {
    dockerfile: 'sub/File',
    t: 'web:1',
    target: 'last',
    buildargs: { A: '1 --rm' },
    labels: { L: '$(id)' },
    nocache: true,
  }
  const end = await build(builds, contextOf({ 'sub/File': 'FROM scratch', a: 'content of a\n' }), wish)
  assert.equal([end.code, end.image], [0, 'sha256:abc'])
  for (const word of [
    '--isolation=chroot',
    '--tag=web:1',
    '--target=last',
    '--build-arg=A=1 --rm',
    '--label=L=$(id)',
    '--no-cache',
  ])
    assert.ok(end.said.includes(`<${word}>`), `${word} in ${end.said}`)
  assert.match(end.said, /<--file=[^>]*\/context\/sub\/File>/)
  assert.match(end.said, /content of a/)
  nothingLeft(stateDir)
})

test('a build that fails tells its code, and leaves no context', async () => {
  const { builds, stateDir } = made(standIn('echo broken >&2; exit 125'))
  const end = await build(builds, contextOf({ Dockerfile: 'FROM scratch' }))
  assert.equal([end.code, end.image], [125, undefined])
  assert.match(end.said, /broken/)
  nothingLeft(stateDir)
})

test('a Dockerfile that is missing, or leads out of the context, is not read', async () => {
  const { builds, stateDir } = made(standIn('cat /etc/passwd'))
  await refused('FileNotFound', build(builds, contextOf({ other: '' })))
  await refused('FileNotFound', build(builds, contextOf({ Dockerfile: { link: '/etc/passwd' } })))
  await refused('InvalidContent', build(builds, Buffer.from('this is no archive at all '.repeat(100))))
  nothingLeft(stateDir)
})

test('a build is killed with what it has started when its caller leaves', async () => {
  const mark = join(folder, 'pid')
  const { builds, stateDir } = made(standIn(`sleep 300 & echo $! > ${mark}; wait`))
  const leaving = new AbortController()
  const reason = new HypervisorError('TaskCancelled', 'the caller has left')
  const timer = setInterval(() => existsSync(mark) && leaving.abort(reason), 20)
  await refused('TaskCancelled', build(builds, contextOf({ Dockerfile: 'FROM scratch' }), {}, leaving.signal))
  clearInterval(timer)
  const pid = Number(readFileSync(mark, 'utf8'))
  await eventually(() => !runs(pid), { what: 'the child being gone' })
  nothingLeft(stateDir)
})

/** A process that nobody has buried is gone all the same. */
function runs(pid: number): boolean {
  const stat = `/proc/${pid}/stat`
  return existsSync(stat) && !/\) Z /.test(readFileSync(stat, 'utf8'))
}

test('a node builds two at once, and no more', async () => {
  const { builds } = made(standIn('sleep 300'))
  const leaving = new AbortController()
  const archive = contextOf({ Dockerfile: 'FROM scratch' })
  const two = [1, 2].map(() => build(builds, archive, {}, leaving.signal).catch(error => error.code))
  await new Promise(resolve => setImmediate(resolve))
  await builds.check()
  await refused('TooManyStreams', build(builds, archive))
  leaving.abort(new HypervisorError('TaskCancelled', 'enough'))
  assert.equal(await Promise.all(two), ['TaskCancelled', 'TaskCancelled'])
})

test('a simulated node names the steps of a Dockerfile', async () => {
  const end = await build(simulatedBuilds(), contextOf({ Dockerfile: 'FROM scratch\nCOPY a /a\n', a: 'x' }), {
    t: 'web',
  })
  assert.is(end.code, 0)
  assert.match(end.image ?? '', /^sha256:[0-9a-f]{64}$/)
  assert.is(end.said, 'STEP 1/2: FROM scratch\nSTEP 2/2: COPY a /a\nSuccessfully tagged web\n')
  await refused('FileNotFound', build(simulatedBuilds(), contextOf({ a: 'x' })))
})

test.run()
