/** Packs an initramfs: busybox, the modules a script may load with all they depend on, that script as /init, and extra files. */
import { copyFile, mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { command } from './command.ts'
import { cacheFolder, type GuestKernel } from './guest-kernel.ts'

export interface InitramfsParts {
  kernel: GuestKernel
  /** Path of the shell script that becomes /init. */
  init: string
  /** Further files: path inside the initramfs without leading slash -> content. */
  files?: Record<string, Buffer>
}

/** Module names as files call them; dependencies are added from modules.dep. */
const modules = ['virtio_pci', 'virtio_scsi', 'sd_mod', 'virtio_net', 'virtio_console', 'button', 'evdev', '8021q']

/** Answers a gzipped newc archive. */
export async function initramfs({ kernel, init, files = {} }: InitramfsParts): Promise<Buffer> {
  const folder = join(cacheFolder, `initramfs.${process.pid}.${basename(init)}`)
  const inside = `lib/modules/${kernel.version}`
  await rm(folder, { recursive: true, force: true })
  try {
    for (const path of ['bin', 'dev', 'proc', 'sys', inside]) await mkdir(join(folder, path), { recursive: true })
    await copyFile(kernel.busybox, join(folder, 'bin/busybox'))
    await command('chmod', ['0755', join(folder, 'bin/busybox')])
    await writeFile(join(folder, 'init'), await readFile(init), { mode: 0o755 })
    const needed = closure(await readFile(join(kernel.modulesFolder, 'modules.dep'), 'utf8'))
    const dep: string[] = []
    for (const [file, wants] of needed) {
      await mkdir(dirname(join(folder, inside, plain(file))), { recursive: true })
      await copyFile(join(kernel.modulesFolder, file), join(folder, inside, file))
      if (file.endsWith('.xz')) await command('xz', ['-d', join(folder, inside, file)])
      dep.push(`${plain(file)}: ${wants.map(plain).join(' ')}`)
    }
    await writeFile(join(folder, inside, 'modules.dep'), `${dep.join('\n')}\n`)
    for (const [path, content] of Object.entries(files)) await writeFile(join(folder, path), content)
    const archive = `${folder}.cpio`
    await command('sh', ['-c', `find . -mindepth 1 | sort | cpio -o --quiet -H newc -R 0:0 -F "$0"`, archive], {
      cwd: folder,
    })
    const packed = gzipSync(await readFile(archive), { level: 6 })
    await rm(archive)
    return packed
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

/** Lines of modules.dep for the wanted modules and everything they need. */
function closure(modulesDep: string): Map<string, string[]> {
  const all = new Map(
    modulesDep
      .split('\n')
      .filter(Boolean)
      .map(line => {
        const [file = '', wants = ''] = line.split(':')
        return [file, wants.split(' ').filter(Boolean)] as const
      }),
  )
  const byName = new Map([...all.keys()].map(file => [moduleName(file), file]))
  const needed = new Map<string, string[]>()
  for (const name of modules) {
    const file = byName.get(name)
    // A module that is built into the kernel has no file and needs none.
    if (!file) continue
    for (const each of [file, ...(all.get(file) ?? [])]) needed.set(each, all.get(each) ?? [])
  }
  return needed
}

function moduleName(file: string): string {
  return basename(plain(file), '.ko').replaceAll('-', '_')
}

function plain(file: string): string {
  return file.replace(/\.xz$/, '')
}
