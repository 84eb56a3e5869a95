/**
 * `node --import tsx scripts/identities.ts [server_uuid ...]`: makes the keys in DATA_DIR that are missing, for the processes and
 * for the agents named, and writes the server configuration that grants them their rights. `npm start` does this by itself.
 */
import { installationSettings } from './config.ts'
import { ensureIdentities, processIdentities } from './keyring.ts'
import { printed } from './operator-problem.ts'

try {
  const made = await ensureIdentities(installationSettings().dataDir, process.argv.slice(2))
  console.log(`server configuration: ${made.confFile}`)
  for (const identity of processIdentities) console.log(`seed of ${identity}: ${made.seedFile(identity)}`)
} catch (error) {
  console.error(`muster: ${printed(error)}`)
  process.exitCode = 1
}
