/** What is looked at before anything is started, so that each thing that is wrong is one line saying what to do. */
import { mkdir, readFile, rm, statfs, writeFile } from 'node:fs/promises'
import { createConnection, createServer } from 'node:net'
import { join } from 'node:path'
import { OperatorProblem } from './operator-problem.ts'

/** Below this a data folder is not started on, and a running one is complained about. */
export const leastFreeMib = 64

/** Makes the data folder and writes to it; names the folder, the reason and the way out otherwise. */
export async function checkDataDir(dataDir: string): Promise<void> {
  const probe = join(dataDir, `.probe-${process.pid}`)
  try {
    // Searchable, because QEMU opens kernels of network installs below it; what is secret lies in folders of its own.
    await mkdir(dataDir, { recursive: true, mode: 0o711 })
    await writeFile(probe, 'x')
    await rm(probe)
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    if (code === 'ENOSPC') throw new OperatorProblem(fullDisk(dataDir, 0))
    throw new OperatorProblem(
      `the data folder ${dataDir} cannot be written (${code ?? message}): make it writable for this user, or set DATA_DIR to another folder`,
    )
  }
  const freeMib = await freeMibOf(dataDir)
  if (freeMib < leastFreeMib) throw new OperatorProblem(fullDisk(dataDir, freeMib))
}

/** Free space of the file system that holds a folder, for users without privileges, in MiB. */
export async function freeMibOf(folder: string): Promise<number> {
  const { bavail, bsize } = await statfs(folder)
  return Math.floor((bavail * bsize) / 1024 ** 2)
}

/** The line for a disk that is full or nearly so. */
export function fullDisk(dataDir: string, freeMib: number): string {
  return `the disk of ${dataDir} is full (${freeMib} MiB free, ${leastFreeMib} needed): free some space, or set DATA_DIR to a folder on another disk`
}

/**
 * Looks every few seconds and says once when space runs out, and once when there is some again, then also calls `recovered`.
 * Returns how to stop.
 */
export function watchDisk(
  dataDir: string,
  say: (line: string) => void,
  recovered: () => void,
  everyMs = 5_000,
): () => void {
  let full = false
  const timer = setInterval(async () => {
    const freeMib = await freeMibOf(dataDir).catch(() => leastFreeMib)
    if (freeMib < leastFreeMib === full) return
    full = freeMib < leastFreeMib
    say(
      full
        ? `${fullDisk(dataDir, freeMib)}; changes may be refused until then`
        : `the disk of ${dataDir} has space again`,
    )
    if (!full) recovered()
  }, everyMs)
  return () => clearInterval(timer)
}

/** Holds the data folder for this process; a folder held by a live start is refused, a dead one's mark is replaced. */
export async function holdDataDir(dataDir: string): Promise<() => Promise<void>> {
  const file = join(dataDir, 'start.pid')
  const holder = Number(await readFile(file, 'utf8').catch(() => ''))
  if (holder && holder !== process.pid && (await isStart(holder))) {
    throw new OperatorProblem(
      `${dataDir} is in use by process ${holder}: stop that one (kill ${holder}), or set DATA_DIR to another folder`,
    )
  }
  await writeFile(file, `${process.pid}\n`)
  return () => rm(file, { force: true })
}

/** Whether a process is an `npm start` of somebody; elsewhere than Linux any live process of that number counts. */
async function isStart(pid: number): Promise<boolean> {
  try {
    process.kill(pid, 0)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EPERM') return false
  }
  const commandLine = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => 'start.ts')
  return commandLine.includes('start.ts')
}

/** Whether nobody listens on a port of this machine; 0 asks for any free one. Returns the port, or undefined. */
export async function freePort(port: number, address = '127.0.0.1'): Promise<number | undefined> {
  const server = createServer()
  try {
    await new Promise<void>((resolve, reject) => server.once('error', reject).listen(port, address, resolve))
    return (server.address() as { port: number }).port
  } catch {
    return undefined
  } finally {
    await new Promise(resolve => server.close(resolve))
  }
}

/** The gateway's port must be free: another program's answers must not be taken for ours. */
export async function checkPort(port: number, address: string): Promise<void> {
  if ((await freePort(port, address)) !== undefined) return
  const why = port < 1024 ? 'is in use or needs root' : 'is in use'
  throw new OperatorProblem(
    `port ${port} on ${address} ${why}: set PORT to another one, for example PORT=${port < 1024 ? 8080 : port + 1} npm start`,
  )
}

export type ChosenHypervisor = { because: string } & (
  | { hypervisor: 'libvirt'; socket: string }
  | { hypervisor: 'simulated' }
)

/** Which hypervisor the agent drives: `auto` takes libvirt if its socket answers. `because` is for the operator. */
export async function chooseHypervisor(
  wanted: 'auto' | 'libvirt' | 'simulated',
  sockets: string[],
): Promise<ChosenHypervisor> {
  if (wanted === 'simulated') return { hypervisor: 'simulated', because: 'HYPERVISOR=simulated' }
  const failures: string[] = []
  for (const socket of sockets) {
    const failure = await connectFailure(socket)
    if (!failure) return { hypervisor: 'libvirt', socket, because: `${socket} answers` }
    failures.push(`${socket}: ${failure}`)
  }
  const because = `libvirt does not answer (${failures.join('; ')})`
  if (wanted === 'auto') return { hypervisor: 'simulated', because }
  const remedy = failures.some(failure => failure.includes('EACCES'))
    ? 'add this user to the group libvirt and log in again'
    : 'install and start libvirtd (Debian: libvirt-daemon-system), or name its socket with LIBVIRT_SOCKET'
  throw new OperatorProblem(`${because}: ${remedy}, or set HYPERVISOR=simulated`)
}

function connectFailure(socket: string): Promise<string | undefined> {
  return new Promise(resolve => {
    const link = createConnection({ path: socket, timeout: 2_000 })
    const end = (failure: string | undefined) => {
      link.destroy()
      resolve(failure)
    }
    link.once('connect', () => end(undefined))
    link.once('timeout', () => end('no answer'))
    link.once('error', (error: NodeJS.ErrnoException) => end(error.code ?? error.message))
  })
}
