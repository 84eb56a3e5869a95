/** Kernel, its modules and a static busybox for lab guests, taken from Debian packages through apt into `.cache/lab`. */
import { existsSync } from 'node:fs'
import { mkdir, readdir, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { attempt, command } from './command.ts'

export interface GuestKernel {
  version: string
  vmlinuz: string
  modulesFolder: string
  busybox: string
}

/** Where the lab keeps what is slow to make: below the checkout, ignored by git. */
export const cacheFolder = new URL('../../../.cache/lab', import.meta.url).pathname

/** Downloads and unpacks once (about 2 s, 28 MB); later calls only look. Needs apt's lists. */
export async function guestKernel(): Promise<GuestKernel> {
  const folder = join(cacheFolder, 'kernel')
  if (!existsSync(folder)) await fetchKernel(folder)
  const vmlinuz = (await readdir(join(folder, 'boot'))).find(name => name.startsWith('vmlinuz-'))
  if (!vmlinuz) throw new Error(`${folder} holds no kernel; remove it and try again`)
  const version = vmlinuz.slice('vmlinuz-'.length)
  const modules = ['lib/modules', 'usr/lib/modules'].find(path => existsSync(join(folder, path, version)))
  const busybox = ['bin/busybox', 'usr/bin/busybox'].find(path => existsSync(join(folder, path)))
  if (!modules || !busybox) throw new Error(`${folder} is incomplete; remove it and try again`)
  return {
    version,
    vmlinuz: join(folder, 'boot', vmlinuz),
    modulesFolder: join(folder, modules, version),
    busybox: join(folder, busybox),
  }
}

// The release's own cloud kernel, through its meta package: small, and with every virtio driver as a module.
async function fetchKernel(folder: string): Promise<void> {
  const fresh = `${folder}.${process.pid}`
  await mkdir(fresh, { recursive: true })
  try {
    const kernel = (await kernelPackage()) ?? (await refreshed())
    if (!kernel) throw new Error('apt knows no linux-image-cloud-amd64: is its mirror reachable?')
    await command(
      'apt-get',
      ['-q', '-o', 'APT::Sandbox::User=root', '-o', 'Acquire::Retries=3', 'download', kernel, 'busybox-static'],
      { cwd: fresh, timeoutMs: 300_000 },
    )
    for (const file of await readdir(fresh)) {
      if (!file.endsWith('.deb')) continue
      await command('dpkg-deb', ['-x', file, '.'], { cwd: fresh })
      await rm(join(fresh, file))
    }
    const [version] = await readdir(
      join(fresh, existsSync(join(fresh, 'lib/modules')) ? 'lib/modules' : 'usr/lib/modules'),
    )
    if (existsSync(join(fresh, 'lib/modules'))) await command('depmod', ['-b', fresh, version ?? ''])
    else await command('depmod', ['-b', join(fresh, 'usr'), version ?? ''])
    await rename(fresh, folder)
  } finally {
    await rm(fresh, { recursive: true, force: true })
  }
}

async function kernelPackage(): Promise<string | undefined> {
  const depends = await attempt('apt-cache', ['depends', 'linux-image-cloud-amd64'])
  return depends?.match(/Depends: (linux-image-\d\S+)/)?.[1]
}

async function refreshed(): Promise<string | undefined> {
  await command('apt-get', ['-q', '-o', 'DPkg::Lock::Timeout=300', 'update'], { timeoutMs: 300_000 })
  return kernelPackage()
}
