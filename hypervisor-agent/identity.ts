/** Which server this is: given by configuration, else made once; either way kept in the state folder. */
import { randomUUID } from 'node:crypto'
import { join } from 'node:path'
import * as v from 'valibot'
import { Uuid } from '../actors/contract/ids.ts'
import { makeFolder, readIfThere, writeDurable } from './durable-file.ts'

/** The uuid of the node whose state is in this folder. Throws when the folder belongs to another one, or cannot be written. */
export async function serverIdentity(stateDir: string, given?: string): Promise<string> {
  const file = join(stateDir, 'uuid')
  let kept: string | undefined
  try {
    // Others may pass through: QEMU opens kernels of network installs below it.
    await makeFolder(stateDir, 0o751)
    kept = (await readIfThere(file))?.trim().toLowerCase()
    const uuid = kept ?? given ?? randomUUID()
    if (kept === undefined) await writeDurable(file, `${uuid}\n`)
  } catch (cause) {
    const { message } = cause as Error
    throw new Error(
      `STATE_DIR=${stateDir} cannot be used (${message}): make it writable for this user, or name another`,
      {
        cause,
      },
    )
  }
  const uuid = kept ?? (await readIfThere(file))?.trim() ?? ''
  if (!v.is(Uuid, uuid)) throw new Error(`${file} holds no UUID: remove it, or restore what it held`)
  if (given !== undefined && given !== uuid) {
    throw new Error(
      `STATE_DIR=${stateDir} belongs to server ${uuid}, not to ${given}: name another folder or SERVER_UUID`,
    )
  }
  return uuid
}
