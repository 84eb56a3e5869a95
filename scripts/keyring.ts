/**
 * The keys of a Muster installation: one nkey per process kind and per agent below DATA_DIR, and the server configuration
 * that grants each its rights. Making them again changes no key.
 */
import { chmod, mkdir, readdir, readFile, rename, writeFile } from 'node:fs/promises'
import { join, relative, resolve } from 'node:path'
import { createUser, fromPublic, fromSeed } from '@nats-io/nkeys'
import { type Identity, userEntry } from '../services/nats/permissions.ts'
import { MAPPINGS } from '../services/nats/subjects.ts'
import { projectDir } from './config.ts'
import { OperatorProblem } from './operator-problem.ts'

/** What processes are started with: where the seed of each identity lies, and the server's configuration file. */
export interface Identities {
  seedFile(identity: Identity): string
  confFile: string
}

/** Makes keys (0600) that are missing, for the four processes and the agents named, and writes the configuration anew. */
export async function ensureIdentities(dataDir: string, agents: string[] = []): Promise<Identities> {
  const folders = foldersOf(dataDir)
  await mkdir(dataDir, { recursive: true, mode: 0o711 })
  for (const folder of Object.values(folders)) await mkdir(folder, { recursive: true, mode: 0o700 })
  for (const identity of [...processIdentities, ...agents.map(agent => ({ agent }))])
    await ensureSeed(dataDir, identity)
  const confFile = await writeServerConf(dataDir)
  return { confFile, seedFile: identity => seedFile(dataDir, identity) }
}

/** Remembers the public key of an agent that keeps its seed elsewhere; a second call replaces the key. */
export async function admitAgent(dataDir: string, uuid: string, publicKey: string): Promise<void> {
  const { agents } = foldersOf(dataDir)
  await mkdir(agents, { recursive: true, mode: 0o700 })
  await writeFile(join(agents, `${uuid}.pub`), `${fromPublic(publicKey).getPublicKey()}\n`, { mode: 0o600 })
  await writeServerConf(dataDir)
}

/** The identities that every installation has. */
export const processIdentities = ['admin', 'host', 'gateway', 'allocator'] as const

/** A fresh user key: `seed` is the secret, `publicKey` what the server's configuration holds. */
export function newKey(): { seed: string; publicKey: string } {
  const pair = createUser()
  return { seed: new TextDecoder().decode(pair.getSeed()), publicKey: pair.getPublicKey() }
}

const foldersOf = (dataDir: string) => ({
  identities: join(dataDir, 'identities'),
  agents: join(dataDir, 'identities/agents'),
  nats: join(dataDir, 'nats'),
})

function seedFile(dataDir: string, identity: Identity): string {
  const { identities, agents } = foldersOf(dataDir)
  return typeof identity === 'object' ? join(agents, `${identity.agent}.nk`) : join(identities, `${identity}.nk`)
}

/** Writes a seed unless there is one; `wx` keeps two starts at once from replacing each other's key. */
async function ensureSeed(dataDir: string, identity: Identity): Promise<void> {
  const file = seedFile(dataDir, identity)
  try {
    await writeFile(file, `${newKey().seed}\n`, { mode: 0o600, flag: 'wx' })
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
    await chmod(file, 0o600)
  }
}

/** nats.conf is included, so what an operator tunes there holds here too; this file adds accounts and users only. */
async function writeServerConf(dataDir: string): Promise<string> {
  const { nats } = foldersOf(dataDir)
  const confFile = join(nats, 'nats-server.conf')
  const include = relative(resolve(nats), join(projectDir, 'nats.conf'))
  const mappings = Object.entries(MAPPINGS).map(([from, to]) => `      ${JSON.stringify(from)}: ${JSON.stringify(to)}`)
  const entries = (await admitted(dataDir)).map(([identity, key]) => `      ${userEntry(identity, key)}`)
  const text = `# Written by scripts/identities.ts from the keys in ${foldersOf(dataDir).identities}; not to be edited.
include ${JSON.stringify(include)}
server_name: $NATS_NAME
system_account: SYS
accounts {
  SYS {}
  MUSTER {
    jetstream: enabled
    mappings {
${mappings.join('\n')}
    }
    users: [
${entries.join('\n')}
    ]
  }
}
`
  const draft = `${confFile}.${process.pid}`
  await writeFile(draft, text, { mode: 0o600 })
  await rename(draft, confFile)
  return confFile
}

/** Everybody who may connect, with public keys: from seeds here, and from public keys of agents elsewhere. */
async function admitted(dataDir: string): Promise<[Identity, string][]> {
  const { agents } = foldersOf(dataDir)
  const found: [Identity, string][] = []
  for (const identity of processIdentities) found.push([identity, await publicKeyOf(seedFile(dataDir, identity))])
  for (const file of (await readdir(agents)).sort()) {
    const [, uuid, kind] = /^(.+)\.(nk|pub)$/.exec(file) ?? []
    if (uuid) found.push([{ agent: uuid }, await publicKeyOf(join(agents, file), kind === 'pub')])
  }
  return found
}

async function publicKeyOf(file: string, isPublic = false): Promise<string> {
  const text = (await readFile(file, 'utf8')).trim()
  try {
    return isPublic ? fromPublic(text).getPublicKey() : fromSeed(new TextEncoder().encode(text)).getPublicKey()
  } catch (cause) {
    throw new OperatorProblem(`${file} holds no usable key; remove it and start again, a new one is made`, { cause })
  }
}
