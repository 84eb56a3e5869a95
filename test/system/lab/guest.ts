/**
 * A tiny guest that boots from its own disk under SeaBIOS: one FAT filesystem with syslinux, Debian's cloud kernel and an
 * initramfs of busybox and one script (guest-init.sh). 96 MiB of memory do; 80 is the least this kernel boots with.
 */
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { command } from './command.ts'
import { cacheFolder, guestKernel } from './guest-kernel.ts'
import { initramfs } from './initramfs.ts'

export interface Guest {
  /** Raw disk image, a few MiB. */
  raw: string
  /** The same as qcow2. */
  qcow2: string
  kernel: string
  initramfs: string
}

const initScript = new URL('guest-init.sh', import.meta.url).pathname

/** Builds the image into `.cache/lab` once for each content of the script (about 2 s), else answers what is there. */
export async function guest(): Promise<Guest> {
  const kernel = await guestKernel()
  const builders = ['guest.ts', 'initramfs.ts'].map(name => new URL(name, import.meta.url).pathname)
  const hash = createHash('sha256').update(kernel.version)
  for (const file of [initScript, ...builders]) hash.update(await readFile(file))
  const folder = join(cacheFolder, `guest-${hash.digest('hex').slice(0, 12)}`)
  const made = {
    raw: join(folder, 'disk.raw'),
    qcow2: join(folder, 'disk.qcow2'),
    kernel: kernel.vmlinuz,
    initramfs: join(folder, 'initrd.gz'),
  }
  if (existsSync(folder)) return made
  const fresh = `${folder}.${process.pid}`
  await mkdir(fresh, { recursive: true })
  try {
    await writeFile(join(fresh, 'initrd.gz'), await initramfs({ kernel, init: initScript }))
    await disk(join(fresh, 'disk.raw'), kernel.vmlinuz, join(fresh, 'initrd.gz'), fresh)
    await command('qemu-img', ['convert', '-O', 'qcow2', join(fresh, 'disk.raw'), join(fresh, 'disk.qcow2')])
    await rename(fresh, folder)
  } finally {
    await rm(fresh, { recursive: true, force: true })
  }
  return made
}

/** The address a guest gives its nth nic: made from the MAC, as guest-init.sh does it. */
export function guestAddress(mac: string, nic = 0): string {
  const bytes = mac.split(':').map(byte => Number.parseInt(byte, 16))
  return `10.${77 + nic}.${bytes[4]}.${bytes[5]}`
}

const bootConfiguration = `DEFAULT muster
PROMPT 0
LABEL muster
  KERNEL /vmlinuz
  INITRD /initrd.gz
  APPEND console=ttyS0,115200n8 quiet no_timer_check muster.diskboot
`

// No partition table: syslinux's boot sector is sector 0, which a BIOS starts just as well.
async function disk(image: string, kernel: string, initrd: string, folder: string): Promise<void> {
  const kib = Math.ceil(((await stat(kernel)).size + (await stat(initrd)).size) / 1024) + 1024
  const config = join(folder, 'syslinux.cfg')
  await writeFile(config, bootConfiguration)
  await command('mkfs.fat', ['-C', image, String(kib)])
  await command('mcopy', ['-i', image, config, '::/syslinux.cfg'])
  await command('mcopy', ['-i', image, kernel, '::/vmlinuz'])
  await command('mcopy', ['-i', image, initrd, '::/initrd.gz'])
  await command('syslinux', ['--install', image])
  await rm(config)
}
