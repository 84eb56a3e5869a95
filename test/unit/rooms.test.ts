/** The map of the rooms holds: who may import whom, no clock or chance in decisions, subjects spelled in one place. */
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import * as assert from 'uvu/assert'
import { suite } from '../suite.ts'

const test = suite('rooms')
const root = new URL('../..', import.meta.url).pathname

/** Longest matching prefix wins. `may`: rooms and packages it may import; `node:` is allowed where not `pure`. */
const ROOMS: Record<string, { may: string[]; pure?: true }> = {
  'actors/contract': { may: ['actors/contract', 'valibot'], pure: true },
  actors: { may: ['actors', 'actors/contract', 'xstate', 're2js'], pure: true },
  'services/nats': {
    may: [
      'services/nats',
      'actors/contract',
      'valibot',
      'nats',
      '@nats-io/jetstream',
      '@nats-io/kv',
      '@nats-io/services',
      '@nats-io/nkeys',
    ],
  },
  services: {
    may: ['services', 'services/nats', 'actors', 'actors/contract', 'valibot', 'xstate', 'pino', 'prom-client'],
  },
  gateway: {
    may: [
      'gateway',
      'services/nats',
      'actors/contract',
      'valibot',
      '@valibot/to-json-schema',
      'hono',
      '@hono/node-server',
      'pino',
      'prom-client',
      'semver',
    ],
  },
  'hypervisor-agent/node-libvirt': { may: ['hypervisor-agent/node-libvirt'] },
  'hypervisor-agent': {
    may: ['hypervisor-agent', 'node-libvirt', 'services/nats', 'actors/contract', 'valibot', 'pino', 'fast-xml-parser'],
  },
}

const rooms = Object.keys(ROOMS).sort((a, b) => b.length - a.length)
const roomOf = (file: string) => rooms.find(room => file.startsWith(`${room}/`))
const files = ['actors', 'services', 'gateway', 'hypervisor-agent'].flatMap(folder =>
  readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
    .filter(name => name.endsWith('.ts') && !name.includes('node_modules') && !/\/(test|scripts)\//.test(`/${name}`))
    .map(name => `${folder}/${name}`),
)
const code = (file: string) => readFileSync(join(root, file), 'utf8').replace(/\/\*[\s\S]*?\*\/|(?<=^|\s)\/\/.*$/gm, '')

test('every room imports only what the map allows', () => {
  const wrong: string[] = []
  let seen = 0
  for (const file of files) {
    const room = roomOf(file)
    if (!room) throw new Error(`${file} is in no room`)
    for (const [, from] of code(file).matchAll(
      /^\s*(?:import|export)\b[^'";]*?from '([^']+)'|\bimport\('([^']+)'\)/gm,
    )) {
      seen += 1
      if (!from || from.startsWith('node:')) continue
      const target = from.startsWith('.') ? normalize(join(dirname(file), from)) : from
      const other = from.startsWith('.') ? (roomOf(target) ?? target) : packageOf(from)
      // The release number, bundled along.
      if (other === 'package.json') continue
      if (!ROOMS[room]?.may.includes(other)) wrong.push(`${file} imports ${from}`)
    }
  }
  assert.equal(wrong, [])
  assert.ok(seen > files.length, `only ${seen} imports found in ${files.length} files: the pattern misses them`)
})

test('decisions have no clock, chance, timer, await or environment', () => {
  const forbidden =
    /\bDate\.now\b|\bnew Date\(\)|\bMath\.random\b|\bcrypto\b|\bsetTimeout\b|\bsetInterval\b|\bawait\b|\bprocess\.|\bperformance\b|from 'node:/
  const wrong = files.filter(file => ROOMS[roomOf(file) ?? '']?.pure && forbidden.test(code(file)))
  assert.equal(wrong, [])
})

test('subject and bucket prefixes are spelled only in services/nats', () => {
  const spelled =
    /['"`](?:\$KV\.|\$JS\.|KV_|p\.\$\{|p\.\*|_INBOX|(?:cn|vm|host|waitlist|agent|hb|evt|machines)\.(?:\$\{|\*|>))/
  const wrong = files.filter(file => !file.startsWith('services/nats/') && spelled.test(code(file)))
  assert.equal(wrong, [])
})

test('the environment is read only where a process parses its configuration', () => {
  const wrong = files.filter(file => /process\.env/.test(code(file)) && !/(?:^|\/)config\.ts$/.test(file))
  assert.equal(wrong, [])
})

function packageOf(from: string): string {
  const parts = from.split('/')
  return from.startsWith('@') ? parts.slice(0, 2).join('/') : (parts[0] ?? from)
}

test.run()
