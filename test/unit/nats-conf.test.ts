/** nats.conf says what the code relies on: the mapping table, durable acknowledgements, the message size. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import { projectDir } from '../../scripts/config.ts'
import { MAPPINGS } from '../../services/nats/subjects.ts'
import { suite } from '../suite.ts'

const test = suite('nats.conf')
const conf = readFileSync(join(projectDir, 'nats.conf'), 'utf8').replaceAll(/^\s*#.*$/gm, '')

test('its mappings are those of the table', () => {
  const block = /^mappings \{([\s\S]*?)^\}/m.exec(conf)?.[1] ?? ''
  const rows = [...block.matchAll(/^\s*"([^"]+)":\s*"([^"]+)"$/gm)].map(([, from, to]) => [from, to])
  assert.equal(Object.fromEntries(rows), { ...MAPPINGS })
  assert.is(rows.length, Object.keys(MAPPINGS).length)
})

test('it acknowledges after fsync, at any path', () => {
  assert.match(conf, /^jetstream \{\s*store_dir: \$NATS_STORE\s*sync_interval: always\s*\}/m)
})

test('it listens on this machine only, unless the command line says otherwise', () => {
  assert.match(conf, /^listen: "127\.0\.0\.1:4222"$/m)
})

test.run()
