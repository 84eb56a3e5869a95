/** The boot defaults as readers find them: whole, absent, damaged in every way, and out of reach. */
import * as assert from 'uvu/assert'
import { loadBootDefaults } from '../../services/nats/boot-defaults.ts'
import { DamagedError, UnavailableError } from '../../services/nats/records.ts'
import { suite } from '../suite.ts'

const test = suite('boot defaults')
const fields = { boot_platform: '6.1', boot_params: { a: 1 }, kernel_flags: {}, default_console: '', serial: 'ttya' }

async function load(stored: unknown) {
  const warnings: string[] = []
  const get = async () => {
    if (stored instanceof Error) throw stored
    return stored === undefined ? undefined : { value: stored, revision: 1 }
  }
  const defaults = await loadBootDefaults({ get }, problem => warnings.push(problem))
  return { defaults, warnings }
}

test('a whole record gives its fields, and none gives none; neither is worth a word', async () => {
  assert.equal(await load({ snapshot: { context: fields } }), { defaults: fields, warnings: [] })
  assert.equal(await load(undefined), { defaults: undefined, warnings: [] })
})

test('a damaged record counts as none, and the warning names its key and what is wrong', async () => {
  const { serial: _, ...without } = fields
  const damaged: [unknown, RegExp][] = [
    [new DamagedError('cn/default is not JSON: Unexpected token'), /cn\/default is not JSON: Unexpected token/],
    ['text', /cn\/default .* the record: .*Object.*"text"/],
    [null, /cn\/default .* the record: .*Object.*null/],
    [[], /cn\/default .* snapshot: /],
    [{ snapshot: {} }, /cn\/default .* snapshot\.context: /],
    [{ snapshot: { context: without } }, /cn\/default .* snapshot\.context\.serial: /],
    [
      { snapshot: { context: { ...fields, boot_params: 5, kernel_flags: null } } },
      /cn\/default .* snapshot\.context\.boot_params: .*5; snapshot\.context\.kernel_flags: .*null/,
    ],
    [
      { snapshot: { context: { ...fields, boot_modules: [{}] } } },
      /cn\/default .* snapshot\.context\.boot_modules\.0\./,
    ],
  ]
  for (const [stored, told] of damaged) {
    const { defaults, warnings } = await load(stored)
    assert.is(defaults, undefined)
    assert.is(warnings.length, 1)
    assert.match(warnings[0]!, told)
    assert.match(warnings[0]!, 'the built-in ones are used')
  }
})

test('a store that does not answer is no damage: whoever asks tries again', async () => {
  const failure = await load(new UnavailableError('no leader')).catch(error => error)
  assert.instance(failure, UnavailableError)
})

test.run()
