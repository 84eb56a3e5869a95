/**
 * A libvirtd of one's own for a test file: unprivileged, with private folders and socket, so it needs neither root nor
 * QEMU and cannot meet the machine's own. Serves `test:///default` and files such as node.xml beside this one.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { chmodSync, chownSync, copyFileSync, mkdtempSync, rmSync } from 'node:fs'
import { createConnection } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { eventually } from '../../../test/eventually.ts'

const nobody = 65534

/** Why there is no libvirtd to start, or undefined if there is one. */
export function libvirtdMissing(): string | undefined {
  return findLibvirtd() ? undefined : 'libvirtd is not installed: apt-get install libvirt-daemon-system'
}

export class PrivateLibvirtd {
  readonly folder = mkdtempSync(join(tmpdir(), 'libvirtd-'))
  readonly socketPath = join(this.folder, 'libvirt/libvirt-sock')
  /** The test driver with the contents of node.xml; each connection has a copy of its own. */
  readonly nodeUri = `test://${join(this.folder, 'node.xml')}`
  #process: ChildProcess | undefined
  #said = ''

  constructor() {
    copyFileSync(join(import.meta.dirname, 'node.xml'), join(this.folder, 'node.xml'))
    chmodSync(this.folder, 0o755)
    if (process.getuid?.() === 0) chownSync(this.folder, nobody, nobody)
  }

  /** Starts it, also again after `stop`; resolves when its socket accepts. */
  async start(): Promise<void> {
    const folders = Object.fromEntries(
      ['HOME', 'XDG_RUNTIME_DIR', 'XDG_CONFIG_HOME', 'XDG_CACHE_HOME'].map(name => [name, this.folder]),
    )
    const child = spawn(findLibvirtd()!, ['--timeout', '60'], {
      env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', ...folders },
      stdio: ['ignore', 'ignore', 'pipe'],
      ...(process.getuid?.() === 0 ? { uid: nobody, gid: nobody } : {}),
    })
    child.stderr?.on('data', chunk => {
      this.#said += chunk
    })
    this.#process = child
    await eventually(
      () => {
        if (child.exitCode !== null) throw new Error(`libvirtd ended: ${this.#said}`)
        return accepts(this.socketPath)
      },
      { withinMs: 15_000, what: 'a socket of libvirtd that accepts' },
    )
  }

  /** Stops it with this signal and waits until it has gone; the folder stays. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    const child = this.#process
    this.#process = undefined
    if (!child || child.exitCode !== null || child.signalCode !== null) return
    const gone = new Promise(resolve => child.once('exit', resolve))
    child.kill(signal)
    await gone
    rmSync(this.socketPath, { force: true })
  }

  /** Freezes it (SIGSTOP) or lets it go on (SIGCONT). */
  signal(signal: 'SIGSTOP' | 'SIGCONT'): void {
    this.#process?.kill(signal)
  }

  async remove(): Promise<void> {
    this.signal('SIGCONT')
    await this.stop('SIGKILL')
    rmSync(this.folder, { recursive: true, force: true })
  }
}

/** The file is there a moment before anybody listens. */
function accepts(path: string): Promise<boolean> {
  return new Promise(resolve => {
    const socket = createConnection(path)
    socket.once('error', () => resolve(false))
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
  })
}

function findLibvirtd(): string | undefined {
  try {
    return execFileSync('sh', ['-c', 'PATH=$PATH:/usr/sbin:/sbin command -v libvirtd'], { encoding: 'utf8' }).trim()
  } catch {
    return undefined
  }
}
