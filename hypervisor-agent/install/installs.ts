/**
 * Network installs on their way: a VM runs from an installer until that stops it, then starts from its disks. One fsynced file per VM
 * says how far it is, so that this also happens when the agent died in between.
 *
 * `starting` (written before the installer is started) -> `running` -> `finishing` (written before the start from disk) -> gone.
 */
import { readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import * as v from 'valibot'
import type { VmSpec } from '../../actors/contract/vm.ts'
import { makeFolder, readIfThere, removeDurable, writeDurable } from '../durable-file.ts'
import type { Hypervisor, Installer, VmState } from '../hypervisor.ts'
import { fetcher } from './fetch.ts'
import { findTree, type InstallerTree } from './tree.ts'

type InstallRequest = NonNullable<VmSpec['install']>

const Install = v.object({
  uuid: v.string(),
  task_id: v.string(),
  state: v.picklist(['starting', 'running', 'finishing']),
})
export type Install = v.InferOutput<typeof Install>

/** Largest kernel and initrd, bytes: Debian's are 8 and 41 MB, RHEL's 14 and 110. */
const kernelMaxBytes = 128 * 1024 ** 2
const initrdMaxBytes = 1024 ** 3

export interface Installs {
  /** InstallSourceInvalid if the location is no installer tree. */
  examine(install: InstallRequest, signal: AbortSignal): Promise<InstallerTree>
  /** Fetches kernel and initrd into the state folder. */
  fetch(uuid: string, install: InstallRequest, signal: AbortSignal): Promise<Installer>
  /** The installer is about to be started; it runs. */
  begins(uuid: string, taskId: string): Promise<void>
  runs(uuid: string): Promise<void>
  /** The VM is stopped or removed on purpose: nothing follows its installer. Unknown VMs are success. */
  forget(uuid: string): Promise<void>
  forgetAll(): Promise<void>
  isInstalling(uuid: string): boolean
  /** Adds `installing: true` to a running VM whose installer runs. */
  annotate<T extends VmState>(vm: T): T
  /** Whether there is any install to look after. */
  isIdle(): boolean
  /** VMs that need `proceed`, seen in a listing. */
  due(vms: readonly VmState[]): string[]
  /** Takes one VM a step on: starts it from disk when its installer stopped. Returns what was done, for the log. */
  proceed(hypervisor: Hypervisor, uuid: string): Promise<'nothing' | 'started_from_disk' | 'given_up'>
}

/** Opens the journal of installs below a state folder. `allowedHosts`: where installers may come from. */
export async function openInstalls(options: {
  stateDir: string
  allowedHosts?: readonly string[]
  onDamaged: (file: string, error: unknown) => void
}): Promise<Installs> {
  const folder = join(options.stateDir, 'installs')
  // QEMU runs as another user and must reach the kernel through these folders.
  const filesFolder = join(options.stateDir, 'installers')
  await makeFolder(folder)
  await makeFolder(filesFolder, 0o751)
  const known = new Map<string, Install>()
  for (const name of await readdir(folder)) {
    if (!name.endsWith('.json')) continue
    try {
      const install = v.parse(Install, JSON.parse((await readIfThere(join(folder, name))) ?? ''))
      known.set(install.uuid, install)
    } catch (error) {
      options.onDamaged(join(folder, name), error)
    }
  }
  const web = fetcher(options.allowedHosts ? { allowedHosts: options.allowedHosts } : {})
  const examine = (install: InstallRequest, signal: AbortSignal) => findTree(web, install.location, signal)
  const fileOf = (uuid: string) => join(folder, `${uuid}.json`)

  async function put(install: Install): Promise<void> {
    await writeDurable(fileOf(install.uuid), `${JSON.stringify(install, null, 2)}\n`)
    known.set(install.uuid, install)
  }
  async function forget(id: string): Promise<void> {
    const uuid = id.toLowerCase()
    await removeDurable(fileOf(uuid))
    known.delete(uuid)
    await rm(join(filesFolder, uuid), { recursive: true, force: true })
  }
  async function move(id: string, state: Install['state']): Promise<void> {
    const install = known.get(id.toLowerCase())
    if (install && install.state !== state) await put({ ...install, state })
  }

  return {
    examine,
    fetch: async (id, install, signal) => {
      const tree = await examine(install, signal)
      const into = join(filesFolder, id.toLowerCase())
      await makeFolder(into, 0o751)
      const [kernelPath, initrdPath] = [join(into, 'linux'), join(into, 'initrd')]
      const get = ({ url, sha256 }: InstallerTree['kernel'], path: string, maxBytes: number) =>
        web.file(url, path, { maxBytes, signal, ...(sha256 ? { sha256 } : {}) })
      await get(tree.kernel, kernelPath, kernelMaxBytes)
      await get(tree.initrd, initrdPath, initrdMaxBytes)
      // The caller's own arguments come last, where they win.
      const cmdline = [tree.cmdline, install.console ? tree.consoleCmdline : '', install.cmdline ?? '']
      return { kernelPath, initrdPath, cmdline: cmdline.filter(Boolean).join(' ') }
    },
    forgetAll: async () => {
      for (const uuid of [...known.keys(), ...(await readdir(filesFolder))]) await forget(uuid)
    },
    begins: async (uuid, taskId) => {
      if (!known.has(uuid.toLowerCase())) await put({ uuid: uuid.toLowerCase(), task_id: taskId, state: 'starting' })
    },
    runs: uuid => move(uuid, 'running'),
    forget,
    isInstalling: uuid => {
      const state = known.get(uuid.toLowerCase())?.state
      return state === 'starting' || state === 'running'
    },
    annotate: vm => {
      const state = known.get(vm.uuid.toLowerCase())?.state
      const isInstalling = vm.state === 'running' && (state === 'starting' || state === 'running')
      return isInstalling ? { ...vm, installing: true } : vm
    },
    isIdle: () => known.size === 0,
    due: vms => {
      const states = new Map(vms.map(vm => [vm.uuid.toLowerCase(), vm.state]))
      return [...known.values()]
        .filter(({ uuid, state }) => {
          const vm = states.get(uuid)
          // A VM that is not there, or not started yet, belongs to the task that makes or removes it.
          if (state === 'starting') return vm === 'running'
          return !(state === 'running' && vm === 'running')
        })
        .map(({ uuid }) => uuid)
    },
    proceed: async (hypervisor, id) => {
      const uuid = id.toLowerCase()
      const install = known.get(uuid)
      if (!install) return 'nothing'
      const vm = (await hypervisor.listVms()).find(one => one.uuid.toLowerCase() === uuid)
      if (install.state === 'starting') {
        if (vm?.state === 'running') await move(uuid, 'running')
        return 'nothing'
      }
      if (install.state === 'running' && vm?.state === 'running') return 'nothing'
      // An installer that crashed, or whose VM was removed behind the agent's back, has left nothing to start.
      if (!vm || vm.state === 'failed') {
        await forget(uuid)
        return 'given_up'
      }
      await move(uuid, 'finishing')
      await hypervisor.startVm(uuid)
      await forget(uuid)
      return 'started_from_disk'
    },
  }
}
