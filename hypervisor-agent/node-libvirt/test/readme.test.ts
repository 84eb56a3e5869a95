/** The README's example runs as it stands, with only its hypervisor replaced by the test driver. */
import { spawnSync } from 'node:child_process'
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import { suite } from '../../../test/suite.ts'
import { libvirtdMissing, PrivateLibvirtd } from './private-libvirtd.ts'

const test = suite('readme')
const missing = libvirtdMissing()
const daemon = new PrivateLibvirtd()
const file = join(import.meta.dirname, `readme-example-${process.pid}.mts`)

if (missing) test.skip('the example runs', missing)
else {
  test.before(() => daemon.start())
  test('the example runs and prints what it says', () => {
    const readme = readFileSync(join(import.meta.dirname, '../README.md'), 'utf8')
    const example = /```ts\n([\s\S]*?)```/.exec(readme)?.[1] ?? ''
    const connection = `{ uri: 'test:///default', socketPath: '${daemon.socketPath}' }`
    const domain = `<domain type='test'><name>web</name><memory unit='MiB'>64</memory><os><type>hvm</type></os></domain>`
    const runnable = example.replace("{ uri: 'qemu:///system' }", connection)
    assert.is.not(runnable, example)
    writeFileSync(file, `const xml = ${JSON.stringify(domain)}\n${runnable}\nconsole.log(typeof freeMem)\n`)
    const { stdout, stderr, status } = spawnSync(process.execPath, ['--import', 'tsx', file], {
      encoding: 'utf8',
      timeout: 20_000,
    })
    assert.is(status, 0, stderr)
    assert.match(stdout, /web defined \(added\)\n/)
    assert.match(stdout, /\{ state: 'running', reason: 'booted' \}\n/)
    assert.match(stdout, /web stopped \(shutdown\)\n/)
    assert.match(stdout, /bigint\n$/)
  })
}

test.after(async () => {
  rmSync(file, { force: true })
  await daemon.remove()
})
test.run()
