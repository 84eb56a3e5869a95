/**
 * Finds kernel and initrd in an operating system's installer tree by the files that such trees carry: `.treeinfo` or `treeinfo`
 * (Fedora, RHEL and kin), else the MANIFEST of Debian's and Ubuntu's netboot images (Ubuntu 20.04: legacy-images).
 */
import { HypervisorError } from '../hypervisor.ts'
import type { Fetcher } from './fetch.ts'

export interface InstallerTree {
  kind: 'treeinfo' | 'debian' | 'ubuntu'
  kernel: RemoteFile
  initrd: RemoteFile
  /** Kernel arguments without which this installer does not find its own tree. */
  cmdline: string
  /** Kernel arguments that put this installer on a serial console. */
  consoleCmdline: string
}

export interface RemoteFile {
  url: string
  /** Hex digest, where the tree publishes one. */
  sha256?: string
}

/** Largest description of a tree that is read, bytes: the MANIFEST and SHA256SUMS of Debian are under 20 KiB. */
const descriptionMaxBytes = 1024 * 1024
const serialConsole = 'console=ttyS0,115200n8'

/** Looks at a location. InstallSourceInvalid says what was looked for, or why the host could not be asked. */
export async function findTree(fetcher: Fetcher, location: string, signal: AbortSignal): Promise<InstallerTree> {
  const base = new URL(location.endsWith('/') ? location : `${location}/`)
  const read = (path: string) => fetcher.text(new URL(path, base).href, { maxBytes: descriptionMaxBytes, signal })
  for (const path of ['.treeinfo', 'treeinfo']) {
    const text = await read(path)
    const tree = text === undefined ? undefined : fromTreeinfo(text, base)
    if (tree) return tree
  }
  for (const images of ['current/images/', 'current/legacy-images/']) {
    const manifest = await read(`${images}MANIFEST`)
    if (manifest === undefined) continue
    const distro = (['ubuntu', 'debian'] as const).find(name => manifest.toLowerCase().includes(name))
    if (distro) return debianTree(distro, base, images, await read(`${images}SHA256SUMS`))
  }
  throw new HypervisorError(
    'InstallSourceInvalid',
    `${location} is no installer tree: there is no .treeinfo, treeinfo, current/images/MANIFEST or current/legacy-images/MANIFEST`,
  )
}

function debianTree(distro: 'debian' | 'ubuntu', base: URL, images: string, sums: string | undefined): InstallerTree {
  const arch = /installer-(\w+)\/?$/.exec(base.pathname)?.[1] ?? 'amd64'
  const file = (name: string): RemoteFile => {
    const path = `netboot/${distro}-installer/${arch}/${name}`
    const sha256 = sums === undefined ? undefined : digestOf(sums, path)
    return { url: new URL(images + path, base).href, ...(sha256 ? { sha256 } : {}) }
  }
  return {
    kind: distro,
    kernel: file('linux'),
    initrd: file('initrd.gz'),
    cmdline: '',
    consoleCmdline: `${serialConsole} DEBIAN_FRONTEND=text`,
  }
}

/** A line of SHA256SUMS is `<digest>  ./<path>`. */
function digestOf(sums: string, path: string): string | undefined {
  for (const line of sums.split('\n')) {
    const [digest, name] = line.trim().split(/\s+\*?/)
    if (name?.replace(/^\.\//, '') === path && /^[0-9a-f]{64}$/i.test(digest ?? '')) return digest?.toLowerCase()
  }
  return undefined
}

function fromTreeinfo(text: string, base: URL): InstallerTree | undefined {
  const sections = parseIni(text)
  const arch = sections['general']?.['arch'] ?? sections['tree']?.['arch'] ?? 'x86_64'
  const images = sections[`images-${arch}`]
  if (!images?.['kernel'] || !images['initrd']) return undefined
  const file = (path: string): RemoteFile => {
    const url = new URL(path, base)
    if (url.origin !== base.origin) {
      throw new HypervisorError('InstallSourceInvalid', `the .treeinfo at ${base.href} leads to another server`)
    }
    const sha256 = /^sha256:([0-9a-f]{64})$/i.exec(sections['checksums']?.[path] ?? '')?.[1]?.toLowerCase()
    return { url: url.href, ...(sha256 ? { sha256 } : {}) }
  }
  return {
    kind: 'treeinfo',
    kernel: file(images['kernel']),
    initrd: file(images['initrd']),
    cmdline: `inst.repo=${base.href}`,
    consoleCmdline: `${serialConsole} inst.text`,
  }
}

/** Sections of `key = value` (or `key: value` never: a colon belongs to a checksum). Lines before the first section are ignored. */
function parseIni(text: string): Record<string, Record<string, string>> {
  const sections: Record<string, Record<string, string>> = Object.create(null)
  let section: Record<string, string> | undefined
  for (const raw of text.split(/\r?\n/)) {
    const line = raw.trim()
    if (!line || line.startsWith('#') || line.startsWith(';')) continue
    const head = /^\[(.+)\]$/.exec(line)?.[1]
    if (head) {
      section = Object.create(null) as Record<string, string>
      sections[head] = section
      continue
    }
    const at = line.indexOf('=')
    if (section && at > 0) section[line.slice(0, at).trim()] = line.slice(at + 1).trim()
  }
  return sections
}
