/**
 * Operating system installer trees on a local HTTP server: Debian's and Ubuntu's layout (also the older-images one) and a
 * tree with .treeinfo. Their one installer writes the lab's bootable image to /dev/sda and reboots (installer-init.sh).
 */
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { guest } from './guest.ts'
import { cacheFolder, guestKernel } from './guest-kernel.ts'
import { initramfs } from './initramfs.ts'

export interface InstallerTrees {
  /** Locations as callers give them; `absent` answers 404 to everything. */
  ubuntu: string
  focal: string
  debian: string
  treeinfo: string
  absent: string
  /** Paths asked for so far. */
  requests: string[]
  /** From now on initrds are answered only after `release` was called. */
  hold(): { asked: () => boolean; release: () => void }
  stop(): Promise<void>
}

/** Memory an installer guest needs: it unpacks the whole image there (96 MiB panic, 128 do). */
export const installerMemoryMib = 160

const installerScript = new URL('installer-init.sh', import.meta.url).pathname

/** Serves on a free port of 127.0.0.1; the first call builds the installer (about 3 s). */
export async function serveInstallerTrees(): Promise<InstallerTrees> {
  const { kernel, initrd } = await installer()
  const files: Record<string, Buffer> = {
    ...debianTree('/ubuntu/dists/xenial/main/installer-amd64/current/images', 'ubuntu', kernel, initrd),
    ...debianTree('/ubuntu/dists/focal/main/installer-amd64/current/legacy-images', 'ubuntu', kernel, initrd),
    ...debianTree('/debian/dists/bookworm/main/installer-amd64/current/images', 'debian', kernel, initrd),
    '/fedora/os/.treeinfo': Buffer.from(treeinfo),
    '/fedora/os/images/pxeboot/vmlinuz': kernel,
    '/fedora/os/images/pxeboot/initrd.img': initrd,
  }
  const requests: string[] = []
  let held: Promise<void> | undefined
  const server = createServer(async (request, response) => {
    const path = (request.url ?? '/').replaceAll(/\/{2,}/g, '/')
    requests.push(path)
    const body = files[path]
    if (path.includes('initrd')) await held
    response.writeHead(body ? 200 : 404, { 'content-length': body?.length ?? 0 })
    response.end(request.method === 'HEAD' ? undefined : body)
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  return {
    ubuntu: `${origin}/ubuntu/dists/xenial/main/installer-amd64`,
    focal: `${origin}/ubuntu/dists/focal/main/installer-amd64/`,
    debian: `${origin}/debian/dists/bookworm/main/installer-amd64/`,
    treeinfo: `${origin}/fedora/os`,
    absent: `${origin}/nothing/here`,
    requests,
    hold: () => {
      const before = requests.length
      let release = () => {}
      held = new Promise(resolve => {
        release = resolve
      })
      return { asked: () => requests.slice(before).some(path => path.includes('initrd')), release: () => release() }
    },
    stop: () =>
      new Promise(resolve => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}

const treeinfo = `[general]
family = Fedora
version = 27
arch = x86_64

[images-i386]
kernel = images/wrong/vmlinuz

[images-x86_64]
kernel = images/pxeboot/vmlinuz
initrd = images/pxeboot/initrd.img
`

function debianTree(images: string, distro: string, kernel: Buffer, initrd: Buffer): Record<string, Buffer> {
  const netboot = `netboot/${distro}-installer/amd64`
  const sum = (content: Buffer) => createHash('sha256').update(content).digest('hex')
  return {
    [`${images}/SHA256SUMS`]: Buffer.from(
      `${sum(kernel)}  ./${netboot}/linux\n${sum(initrd)}  ./${netboot}/initrd.gz\n`,
    ),
    [`${images}/MANIFEST`]: Buffer.from(
      `${netboot}/initrd.gz -- initrd for network boot\n${netboot}/linux -- kernel image for network boot\n`,
    ),
    [`${images}/${netboot}/linux`]: kernel,
    [`${images}/${netboot}/initrd.gz`]: initrd,
  }
}

async function installer(): Promise<{ kernel: Buffer; initrd: Buffer }> {
  const kernel = await guestKernel()
  const image = await readFile((await guest()).raw)
  const hash = createHash('sha256')
    .update(image)
    .update(await readFile(installerScript))
  const folder = join(cacheFolder, `installer-${hash.digest('hex').slice(0, 12)}`)
  if (!existsSync(folder)) {
    const fresh = `${folder}.${process.pid}`
    await mkdir(fresh, { recursive: true })
    try {
      const files = { 'image.gz': gzipSync(image, { level: 1 }) }
      await writeFile(join(fresh, 'initrd.gz'), await initramfs({ kernel, init: installerScript, files }))
      await rename(fresh, folder)
    } finally {
      await rm(fresh, { recursive: true, force: true })
    }
  }
  return { kernel: await readFile(kernel.vmlinuz), initrd: await readFile(join(folder, 'initrd.gz')) }
}
