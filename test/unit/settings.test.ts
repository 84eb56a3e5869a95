/** Settings by file and environment: every documented key has its place, problems are told together, and what changes nothing is named. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import { DOCUMENTED_SETTINGS } from '../../actors/contract/settings.ts'
import { readConfig as gatewayConfig } from '../../gateway/config.ts'
import { agentConfig } from '../../hypervisor-agent/config.ts'
import { projectDir, startSettings } from '../../scripts/config.ts'
import { readConfig as hostConfig } from '../../services/actor-host/config.ts'
import { readConfig as allocatorConfig } from '../../services/allocator/config.ts'
import { ALLOC_SETTINGS } from '../../services/allocator/knobs.ts'
import { suite } from '../suite.ts'

const test = suite('settings')
const folder = mkdtempSync(join(tmpdir(), 'muster-settings-'))
test.after(() => rmSync(folder, { recursive: true, force: true }))

let files = 0
function file(content: unknown): string {
  files += 1
  const path = join(folder, `${files}.json`)
  writeFileSync(path, typeof content === 'string' ? content : JSON.stringify(content))
  return path
}

/** As an operator's template fills it. */
const cnapi = {
  logLevel: 'debug',
  datacenter_name: 'east-1',
  adminUuid: '930896af-bf8c-48d4-885c-6573a94b1853',
  amqp: { host: 'rabbitmq.east-1.example.com' },
  moray: { host: 'moray.east-1.example.com', port: 2020 },
  api: { port: 8088 },
  wfapi: { workflows: ['server-setup'], url: 'http://workflow.example.com' },
  napi: { url: 'http://napi.example.com' },
  assets: { url: 'http://assets.example.com' },
  cnapi: { url: 'http://cnapi.example.com' },
  imgapi: { url: 'http://imgapi.example.com' },
  dapi: {
    changeDefaults: { server_spread: '', filter_headnode: 'false', overprovision_ratio_cpu: '2.5' },
    allocationDescription: [['pipe', 'hard-filter-setup']],
  },
  ALLOC_WEIGHT_NEXT_REBOOT: 0.25,
  FEATURE_USE_CNAGENT_COMMAND_EXECUTE: true,
  SMT_ENABLED_DEFAULT: false,
}

test('a config file of CNAPI is read by every process, and the environment wins over it', () => {
  const CONFIG_FILE = file(cnapi)
  const gateway = gatewayConfig({ CONFIG_FILE }, [])
  assert.equal([gateway.logLevel, gateway.datacenter, gateway.port], ['debug', 'east-1', 8088])
  const host = hostConfig({ CONFIG_FILE }, [])
  assert.equal([host.logLevel, host.datacenter, host.smtEnabled], ['debug', 'east-1', false])
  const { knobs, datacenter } = allocatorConfig({ CONFIG_FILE }, [])
  assert.is(datacenter, 'east-1')
  assert.equal([knobs.filter_headnode, knobs.overprovision_ratio_cpu, knobs.weight_next_reboot], [false, 2.5, 0.25])
  const env = { CONFIG_FILE, PORT: '9000', LOG_LEVEL: '50', DATACENTER_NAME: 'west', ALLOC_FILTER_HEADNODE: 'true' }
  const over = gatewayConfig(env, [])
  assert.equal([over.logLevel, over.datacenter, over.port], ['error', 'west', 9000])
  assert.is(allocatorConfig(env, []).knobs.filter_headnode, true)
  assert.is(agentConfig({ CONFIG_FILE, STATE_DIR: '/x', HYPERVISOR: 'simulated' }).logLevel, 'debug')
  assert.is(startSettings({ CONFIG_FILE }).port, 8088)
})

test('the file may be named by an argument, and a variable that is empty is not set', () => {
  const path = file({ LOG_LEVEL: 'warn', METRICS_PORT: 9999 })
  assert.is(gatewayConfig({ LOG_LEVEL: '' }, ['--config', path]).logLevel, 'warn')
  assert.is(gatewayConfig({}, [`--config=${path}`]).metrics?.port, 9999)
  assert.is(gatewayConfig({ METRICS_PORT: 'off' }, ['--config', path]).metrics, undefined)
  assert.equal(gatewayConfig({}, []).metrics, { port: 8881, host: '127.0.0.1', isDefault: true })
})

test('documented keys that change nothing are accepted and named, each with its reason', () => {
  const named = gatewayConfig({ CONFIG_FILE: file(cnapi) }, []).idle.map(({ setting }) => setting)
  assert.equal(named, [
    'adminUuid',
    'amqp.host',
    'moray.host',
    'moray.port',
    'wfapi.workflows',
    'wfapi.url',
    'napi.url',
    'assets.url',
    'cnapi.url',
    'dapi.allocationDescription',
    'FEATURE_USE_CNAGENT_COMMAND_EXECUTE',
  ])
  assert.equal(gatewayConfig({}, []).idle, [])
  assert.ok(gatewayConfig({ NAPI_URL: 'http://napi' }, []).idle[0]?.because)
})

test('everything that is wrong in file and environment is told in one error', () => {
  const CONFIG_FILE = file({ ...cnapi, logLevel: 'loud', moray: { port: 'x' }, api: { prt: 1 }, colour: 'red' })
  const wrong = message(() => gatewayConfig({ CONFIG_FILE, GATEWAY_ID: 'a b', METRICS_PORT: '99999' }, []))
  for (const part of ['LOG_LEVEL: must be one of', 'moray.port: must be a port', 'api.prt: is no setting'])
    assert.match(wrong, part)
  for (const part of ['colour: is no setting', 'GATEWAY_ID: must be letters', 'METRICS_PORT: must be a port'])
    assert.match(wrong, part)
  assert.match(
    message(() => allocatorConfig({ CONFIG_FILE, ALLOC_FILTER_CAPNESS: 'perhaps' }, [])),
    'ALLOC_FILTER_CAPNESS',
  )
  assert.match(
    message(() => hostConfig({ SMT_ENABLED_DEFAULT: 'maybe' }, [])),
    'SMT_ENABLED_DEFAULT: must be true or false',
  )
})

test('a file that is missing, no JSON or no object is one problem, said before anything starts', () => {
  for (const [path, said] of [
    [join(folder, 'nowhere.json'), 'cannot be read'],
    [file('{'), 'cannot be read'],
    [file([]), 'must hold a JSON object'],
  ]) {
    assert.match(
      message(() => hostConfig({ CONFIG_FILE: path }, [])),
      said ?? '',
    )
  }
})

test('the table for operators names every documented setting with its variable', () => {
  const page = readFileSync(join(projectDir, 'docs/configuration.md'), 'utf8')
  for (const { key, env } of DOCUMENTED_SETTINGS) {
    assert.match(page, `| \`${key}\` |`, key)
    assert.match(page, `\`${env}\``, env)
  }
  for (const name of ALLOC_SETTINGS) assert.match(page, `| \`${name}\` |`, name)
})

function message(act: () => unknown): string {
  try {
    act()
  } catch (error) {
    return (error as Error).message
  }
  throw new Error('nothing was wrong')
}

test.run()
