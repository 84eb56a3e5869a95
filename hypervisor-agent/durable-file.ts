/** Files that are whole or absent after a power cut: written beside, fsynced, renamed, folder fsynced. */
import { chmod, mkdir, open, readFile, rename, rm } from 'node:fs/promises'
import { dirname } from 'node:path'

/** Replaces a file. Resolves when the new content would survive a power cut. */
export async function writeDurable(path: string, text: string, mode = 0o600): Promise<void> {
  const beside = `${path}.new`
  const file = await open(beside, 'w', mode)
  try {
    await file.writeFile(text)
    // A strict umask of the service must not take away what the mode grants.
    await file.chmod(mode)
    await file.sync()
  } finally {
    await file.close()
  }
  await rename(beside, path)
  await syncFolder(dirname(path))
}

/** Removes a file; an absent one is success. */
export async function removeDurable(path: string): Promise<void> {
  await rm(path, { force: true })
  await syncFolder(dirname(path))
}

/** The text of a file, undefined if there is none. */
export async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}

/** Makes a folder with its parents. `mode` says who may look inside a new one. */
export async function makeFolder(path: string, mode = 0o750): Promise<void> {
  const made = await mkdir(path, { recursive: true, mode })
  // A strict umask of the service must not take away what the mode grants.
  if (made !== undefined) await chmod(path, mode)
}

async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r')
  try {
    await folder.sync()
  } finally {
    await folder.close()
  }
}
