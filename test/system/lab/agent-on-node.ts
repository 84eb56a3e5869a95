/** Installs the agent's package on a node with systemd and enrolls it, by the commands that `npm run enroll` prints. */
import { copyFile, mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { buildAgentPackage, buildBundles } from '../../../scripts/build.ts'
import { command } from './command.ts'
import type { Muster } from './muster.ts'
import type { SystemdNode } from './nspawn.ts'

const enrollMain = new URL('../../../scripts/enroll.ts', import.meta.url).pathname

/** Builds the packages in `folder` and installs them; the agent is not started by that. */
export async function installAgent(node: SystemdNode, folder: string): Promise<void> {
  await buildBundles(folder, ['agent', 'agent-installer'])
  const packages = [await buildAgentPackage(folder), await nodePackage(folder)]
  for (const [index, file] of packages.entries()) await copyFile(file, join(node.root, `root/${index}.deb`))
  await node.run('dpkg', ['-i', '/root/1.deb', '/root/0.deb'])
}

/** Resolves when the agent has said that it is ready: its unit is Type=notify. */
export async function enrollAgent(node: SystemdNode, muster: Muster, serverUuid: string): Promise<void> {
  const printed = await command(process.execPath, ['--import', 'tsx', enrollMain, serverUuid], {
    env: { ...muster.env, NATS_URL: muster.natsUrl },
  })
  const there = printed.match(/## On that machine.*\n([\s\S]*?)\n## /)?.[1] ?? ''
  const here = printed.match(/takes it up with: (kill .*)/)?.[1] ?? ''
  await command('sh', ['-ec', here])
  await node.run('sh', ['-ec', there], { timeoutMs: 90_000 })
}

/** This Node as a package, since the release's own nodejs may be too old for the agent. */
async function nodePackage(into: string): Promise<string> {
  const root = join(into, 'nodejs')
  await mkdir(join(root, 'DEBIAN'), { recursive: true })
  const version = process.versions.node
  await writeFile(
    join(root, 'DEBIAN/control'),
    `Package: nodejs\nVersion: ${version}\nArchitecture: amd64\nMaintainer: lab <lab@localhost>\nDescription: the running Node\n`,
  )
  const file = join(into, 'nodejs.deb')
  await command('dpkg-deb', ['--root-owner-group', '-Znone', '--build', root, file])
  return file
}
