/** The installer's process: reads its settings, carries out the orders there are, ends. Started as root by muster-agent-install.path. */
import { join } from 'node:path'
import { fetcher } from '../install/fetch.ts'
import { installerConfig } from './config.ts'
import { carryOutOrders } from './installer.ts'
import { ordersFolder } from './order.ts'
import { packages, runProgram } from './packages.ts'

run().catch(error => {
  console.error((error as Error).message)
  process.exit(1)
})

async function run(): Promise<void> {
  const { stateDir, dir, allowedHosts, prefix, service } = installerConfig()
  await carryOutOrders({
    ordersDir: join(stateDir, ordersFolder),
    dir,
    web: fetcher({ allowedHosts, setting: 'AGENT_INSTALL_ALLOW' }),
    packages: packages({ run: runProgram, prefix }),
    log: line => console.log(line),
    ...(service ? { service } : {}),
  })
}
