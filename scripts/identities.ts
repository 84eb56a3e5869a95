/**
 * `node --import tsx scripts/identities.ts [server_uuid ...]`: makes the keys in DATA_DIR that are missing, for the processes and
 * for the agents named, and writes the server configuration that grants them their rights. `npm start` does this by itself.
 */
import * as v from 'valibot'
import { Uuid } from '../actors/contract/ids.ts'
import { installationSettings } from './config.ts'
import { ensureIdentities, processIdentities } from './keyring.ts'
import { OperatorProblem, printed } from './operator-problem.ts'

try {
  const agents = process.argv.slice(2).map(text => text.toLowerCase())
  const wrong = agents.filter(text => !v.safeParse(Uuid, text).success)
  if (wrong.length > 0) throw new OperatorProblem(`not a server uuid: ${wrong.join(', ')}`)
  const made = await ensureIdentities(installationSettings().dataDir, agents)
  console.log(`server configuration: ${made.confFile}`)
  for (const identity of processIdentities) console.log(`seed of ${identity}: ${made.seedFile(identity)}`)
} catch (error) {
  console.error(`muster: ${printed(error)}`)
  process.exitCode = 1
}
