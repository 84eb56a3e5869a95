/**
 * What a Linux host can boot: its installed kernels by release, which of them runs, and which comes next if nobody intervenes. The names
 * are what `boot_platform` takes.
 */
import { readdir, readFile, readlink } from 'node:fs/promises'
import { join } from 'node:path'
import type { Platform } from '../actors/contract/server.ts'

/** Looks below `root` (of a test, a folder). `running`: the release of the kernel that runs; listed even where its files are gone. */
export async function installedPlatforms(running: string, root = '/'): Promise<Platform[]> {
  const [images, modules] = await Promise.all([list(join(root, 'boot')), list(join(root, 'lib/modules'))])
  const bootable = images.flatMap(file => imageForm.exec(file)?.[1] ?? [])
  // A host whose boot loader keeps its kernels elsewhere still has their modules.
  const installed = new Set(bootable.length > 0 ? bootable : modules)
  const next = await nextOf(root, installed)
  return [...new Set([...installed, running])].sort().map(name => ({
    name,
    ...(name === running ? { running: true } : {}),
    ...(name === next ? { next: true } : {}),
  }))
}

/** A kernel image by its release; not the copy that some packages leave behind. */
const imageForm = /^vmlinuz-(.+?)(?<!\.old)$/

/** Ordered for one boot (grub-reboot), else where the link of the distribution points, which its boot loader follows. */
async function nextOf(root: string, installed: ReadonlySet<string>): Promise<string | undefined> {
  const once = /^next_entry=(.+)$/m.exec(await text(join(root, 'boot/grub/grubenv')))?.[1]
  // A release may begin another one's name.
  const ordered = once && [...installed].filter(name => once.includes(name)).sort((a, b) => b.length - a.length)[0]
  if (ordered) return ordered
  for (const link of ['vmlinuz', 'boot/vmlinuz']) {
    const target = await readlink(join(root, link)).catch(() => '')
    const name = imageForm.exec(target.split('/').at(-1) ?? '')?.[1]
    if (name && installed.has(name)) return name
  }
  return installed.size === 1 ? [...installed][0] : undefined
}

const list = (folder: string) => readdir(folder).catch((): string[] => [])
const text = (file: string) => readFile(file, 'utf8').catch(() => '')
