/** The compute nodes of a one-machine installation: their server uuids stay the same from start to start. */
import { randomUUID } from 'node:crypto'
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import * as v from 'valibot'
import { Uuid } from '../actors/contract/ids.ts'
import { OperatorProblem } from './operator-problem.ts'

const Nodes = v.object({ libvirt: v.optional(v.array(Uuid), []), simulated: v.optional(v.array(Uuid), []) })

/** The first `count` nodes of a kind of hypervisor; new ones are added to `nodes.json` in the data folder. */
export async function nodeUuids(
  dataDir: string,
  hypervisor: 'libvirt' | 'simulated',
  count: number,
): Promise<string[]> {
  const file = join(dataDir, 'nodes.json')
  const nodes = await readNodes(file)
  const uuids = nodes[hypervisor]
  if (uuids.length < count) {
    while (uuids.length < count) uuids.push(randomUUID())
    await writeFile(`${file}.new`, `${JSON.stringify(nodes, null, 2)}\n`)
    await rename(`${file}.new`, file)
  }
  return uuids.slice(0, count)
}

/** Tells each simulated node which server it is, in the folder its agent keeps; returns the uuids. */
export async function simulatedFolders(stateDir: string, serverUuids: string[]): Promise<string[]> {
  for (const [at, uuid] of serverUuids.entries()) {
    const folder = join(stateDir, String(at + 1))
    await mkdir(folder, { recursive: true, mode: 0o751 })
    await writeFile(join(folder, 'uuid'), `${uuid}\n`)
  }
  return serverUuids
}

async function readNodes(file: string): Promise<v.InferOutput<typeof Nodes>> {
  const text = await readFile(file, 'utf8').catch(() => '{}')
  try {
    return v.parse(Nodes, JSON.parse(text))
  } catch {
    throw new OperatorProblem(`${file} is damaged: mend it, or remove it to give the nodes here new uuids`)
  }
}
