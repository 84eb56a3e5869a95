/**
 * `npm run enroll -- <server_uuid>`: admits an agent on another machine. Prints what that machine needs (seed, environment
 * file, commands) and what the NATS configuration needs; where DATA_DIR holds an installation, the key is admitted there.
 */
import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import * as v from 'valibot'
import { Uuid } from '../actors/contract/ids.ts'
import { userEntry } from '../services/nats/permissions.ts'
import { installationSettings } from './config.ts'
import { admitAgent, newKey } from './keyring.ts'

const given = v.safeParse(Uuid, process.argv[2])
if (!given.success || process.argv.length > 3) {
  console.error('usage: npm run enroll -- <server_uuid>     (a UUID, such as the output of uuidgen)')
  process.exitCode = 1
} else await enroll(given.output.toLowerCase())

async function enroll(uuid: string): Promise<void> {
  const { dataDir, natsUrl } = installationSettings()
  const { seed, publicKey } = newKey()
  const here = await stat(join(dataDir, 'identities/admin.nk')).then(
    () => true,
    () => false,
  )
  if (here) await admitAgent(dataDir, uuid, publicKey)
  const pidFile = join(dataDir, 'nats/nats-server.pid')
  console.log(`# Agent of server ${uuid}

## On that machine, as root, after installing the package muster-agent (npm run build makes it)
install -m 0600 /dev/stdin /etc/muster-agent/agent.nk <<'END'
${seed}
END
install -m 0644 /dev/stdin /etc/default/muster-agent <<'END'
SERVER_UUID=${uuid}
NATS_URL=${natsUrl ?? 'nats://<address of the NATS server>:4222'}
NATS_SEED_FILE=/etc/muster-agent/agent.nk
END
chown muster-agent /etc/muster-agent/agent.nk
systemctl enable --now muster-agent

## In the NATS configuration, under the users of Muster's account
${userEntry({ agent: uuid }, publicKey)}
${
  here
    ? `\nThe key has been admitted in ${dataDir}; a running server takes it up with: kill -HUP "$(cat ${pidFile})"`
    : '\nReload the server afterwards: nats-server --signal reload'
}`)
}
