/** One agent per state folder: two would carry out the same tasks. A process id in a file, since a dead one's is recognisable. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { makeFolder, readIfThere, removeDurable, writeDurable } from './durable-file.ts'

/** Takes the folder, or throws naming the process that has it. Returns how to give it back. */
export async function holdStateDir(stateDir: string): Promise<() => Promise<void>> {
  const file = join(stateDir, 'pid')
  try {
    await makeFolder(stateDir, 0o751)
    const holder = Number((await readIfThere(file))?.trim())
    if (holder && holder !== process.pid && isAgent(holder)) {
      throw new Error(`process ${holder} uses it: stop that one, or give this one a folder of its own`)
    }
    await writeDurable(file, `${process.pid}\n`)
  } catch (cause) {
    const { message, code } = cause as NodeJS.ErrnoException
    const hint = code === undefined ? '' : ': make it writable for this user, or name another'
    throw new Error(`STATE_DIR=${stateDir} cannot be used (${message})${hint}`, { cause })
  }
  return () => removeDurable(file)
}

/** Whether a process lives and is an agent; process ids are used again, so living is not enough. */
function isAgent(pid: number): boolean {
  try {
    return /agent/.test(readFileSync(`/proc/${pid}/cmdline`, 'utf8'))
  } catch {
    return false
  }
}
