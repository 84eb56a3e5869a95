/** What `npm run build` makes is complete: bundles run without node_modules, the package holds unit, settings and user. */
import { execFileSync, spawnSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs'
import { builtinModules } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import { buildAgentPackage, buildBundles, bundles } from '../../scripts/build.ts'
import { projectDir } from '../../scripts/config.ts'
import { suite } from '../suite.ts'

const test = suite('npm run build')
const folder = mkdtempSync(join(tmpdir(), 'muster-build-'))
const dist = join(folder, 'app/dist')
const builtin = new Set(builtinModules)
const has = (program: string) => spawnSync(program, ['--version']).error === undefined

test.before(async () => {
  mkdirSync(dist, { recursive: true })
  await buildBundles(dist)
  cpSync(join(projectDir, 'package.json'), join(folder, 'app/package.json'))
})
test.after(() => rmSync(folder, { recursive: true }))

test('every program is one file that needs nothing but Node', () => {
  for (const name of Object.keys(bundles)) {
    const file = join(dist, `${name}.mjs`)
    assert.ok(statSync(file).size > 10_000, name)
    assert.is(spawnSync(process.execPath, ['--check', file]).status, 0, `${name} parses`)
    const imports = [...readFileSync(file, 'utf8').matchAll(/^(?:import|export) .*? from ["']([^"']+)["']/gm)].map(
      ([, from]) => from,
    )
    assert.equal(
      imports.filter(from => !from?.startsWith('node:') && !builtin.has(from ?? '')),
      [],
      name,
    )
  }
})

test('the processes start from their bundles and say in one line what is wrong', () => {
  for (const name of ['actor-host', 'allocator', 'gateway', 'agent']) {
    const { status, stdout, stderr } = spawnSync(process.execPath, [join(dist, `${name}.mjs`)], {
      cwd: folder,
      env: {
        NATS_URL: 'nats://127.0.0.1:4',
        NATS_SEED_FILE: join(folder, 'no-seed'),
        STATE_DIR: join(folder, 'state'),
        HYPERVISOR: 'simulated',
      },
      encoding: 'utf8',
      timeout: 20_000,
    })
    assert.is.not(status, 0, `${name} must not go on without its seed`)
    assert.match(stdout + stderr, 'no-seed', `${name}: ${stdout}${stderr}`)
    assert.not.match(stdout + stderr, 'Cannot find')
  }
})

if (!has('dpkg-deb')) test.skip('the Debian package holds bundle, unit, settings and scripts', 'dpkg-deb is not here')
else
  test('the Debian package holds bundle, unit, settings and scripts, owned by root', async () => {
    const deb = await buildAgentPackage(dist)
    const field = (name: string) => execFileSync('dpkg-deb', ['--field', deb, name], { encoding: 'utf8' }).trim()
    const { version } = JSON.parse(readFileSync(join(projectDir, 'package.json'), 'utf8')) as { version: string }
    assert.is(field('Package'), 'muster-agent')
    assert.is(field('Version'), version)
    assert.match(field('Depends'), 'nodejs (>= 20.19)')
    const listing = execFileSync('dpkg-deb', ['--contents', deb], { encoding: 'utf8' })
    for (const file of [
      'usr/lib/muster-agent/agent.mjs',
      'usr/lib/systemd/system/muster-agent.service',
      'etc/default/muster-agent',
    ]) {
      assert.match(listing, new RegExp(`^-rw-r--r-- root/root .* \\./${file}$`, 'm'))
    }
    const root = join(folder, 'root')
    execFileSync('dpkg-deb', ['--raw-extract', deb, root])
    assert.is(readFileSync(join(root, 'DEBIAN/conffiles'), 'utf8'), '/etc/default/muster-agent\n')
    assert.match(readFileSync(join(root, 'DEBIAN/postinst'), 'utf8'), 'usermod -aG libvirt muster-agent')
    for (const script of ['postinst', 'prerm', 'postrm']) {
      assert.is(spawnSync('sh', ['-n', join(root, 'DEBIAN', script)]).status, 0, script)
      assert.is(statSync(join(root, 'DEBIAN', script)).mode & 0o777, 0o755)
    }
    const unit = readFileSync(join(root, 'usr/lib/systemd/system/muster-agent.service'), 'utf8')
    const [, bundle = ''] = /^ExecStart=\S+ .*?(\/\S+\.mjs)$/m.exec(unit) ?? []
    assert.ok(existsSync(join(root, bundle)), `${bundle} is in the package`)
    assert.match(unit, `EnvironmentFile=/etc/default/muster-agent`)
  })

const units = ['muster-agent.service', 'muster@.service']
if (!has('systemd-analyze')) test.skip('the units are valid and hardened', 'systemd-analyze is not here')
else
  test('the units are valid and hardened', () => {
    for (const unit of units) {
      const file = join(folder, unit.replace('@', '@gateway'))
      const text = readFileSync(join(projectDir, 'deploy', unit), 'utf8')
      cpSync(join(projectDir, 'deploy', unit), file)
      const verified = spawnSync('systemd-analyze', ['verify', file], { encoding: 'utf8' })
      // A machine without Node at Debian's place is told so; the unit is none the worse for it.
      const complaints = verified.stderr
        .split('\n')
        .filter(line => line.includes(unit.split('.')[0] ?? '') && !/not executable/.test(line))
      assert.equal(complaints, [])
      const security = spawnSync('systemd-analyze', ['security', '--offline=true', '--threshold=20', file], {
        encoding: 'utf8',
      })
      assert.is(security.status, 0, security.stdout.split('\n').slice(-3).join('\n'))
      assert.not.match(text, /^MemoryDenyWriteExecute/m, 'Node dies under it')
    }
    assert.match(readFileSync(join(projectDir, 'deploy/muster-agent.service'), 'utf8'), /^WatchdogSec=/m)
  })

test.run()
