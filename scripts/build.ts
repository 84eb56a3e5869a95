/**
 * `npm run build`: one bundle per program in `dist/`, which need nothing but Node, and the agent as a Debian package with its
 * unit and default configuration. Bundles without a package where there is no dpkg-deb.
 */
import { execFile } from 'node:child_process'
import { chmod, copyFile, mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { promisify } from 'node:util'
import { build } from 'esbuild'
import { projectDir } from './config.ts'

/** Bundle name -> its main file. `dist/<name>.mjs` lies one folder below the project, as `scripts/` does. */
export const bundles = {
  'actor-host': 'services/actor-host/main.ts',
  agent: 'hypervisor-agent/main.ts',
  'agent-installer': 'hypervisor-agent/agents/installer-main.ts',
  allocator: 'services/allocator/main.ts',
  gateway: 'gateway/main.ts',
  enroll: 'scripts/enroll.ts',
  identities: 'scripts/identities.ts',
  provision: 'scripts/provision.ts',
} as const

/** Builds every bundle into a folder; nothing is taken from node_modules at run time. */
export async function buildBundles(
  outdir: string,
  names = Object.keys(bundles) as (keyof typeof bundles)[],
): Promise<void> {
  await build({
    absWorkingDir: projectDir,
    entryPoints: Object.fromEntries(names.map(name => [name, bundles[name]])),
    outdir,
    outExtension: { '.js': '.mjs' },
    bundle: true,
    platform: 'node',
    target: 'node20',
    format: 'esm',
    sourcemap: true,
    logLevel: 'warning',
    // Some dependencies are CommonJS and require() Node's own modules.
    banner: {
      js: "import { createRequire as __createRequire } from 'node:module'; const require = __createRequire(import.meta.url);",
    },
    // Converters that hono-openapi and valibot's neighbours import lazily and that are not installed here.
    external: ['zod', 'arktype', 'effect', 'typebox', 'sury'],
  })
}

/** Packs the agent's bundle in `outdir` as `muster-agent_<version>_all.deb`; returns the file. */
export async function buildAgentPackage(outdir: string): Promise<string> {
  const { version } = JSON.parse(await readFile(join(projectDir, 'package.json'), 'utf8')) as { version: string }
  const root = await mkdtemp(join(tmpdir(), 'muster-deb-'))
  try {
    await chmod(root, 0o755)
    for (const [to, [from, mode]] of Object.entries(contents(outdir))) {
      const target = join(root, to)
      await mkdir(dirname(target), { recursive: true, mode: 0o755 })
      await copyFile(from, target)
      await chmod(target, mode)
    }
    await writeFile(join(root, 'DEBIAN/control'), control(version))
    await writeFile(join(root, 'DEBIAN/conffiles'), '/etc/default/muster-agent\n')
    const file = join(outdir, `muster-agent_${version}_all.deb`)
    await run('dpkg-deb', ['--root-owner-group', '-Zxz', '--build', root, file])
    return file
  } finally {
    await rm(root, { recursive: true, force: true })
  }
}

const run = promisify(execFile)

/** Path in the package -> file here and its mode. */
function contents(outdir: string): Record<string, [from: string, mode: number]> {
  const deploy = (name: string) => join(projectDir, 'deploy', name)
  return {
    'usr/lib/muster-agent/agent.mjs': [join(outdir, 'agent.mjs'), 0o644],
    'usr/lib/muster-agent/agent.mjs.map': [join(outdir, 'agent.mjs.map'), 0o644],
    'usr/lib/muster-agent/agent-installer.mjs': [join(outdir, 'agent-installer.mjs'), 0o644],
    'usr/lib/systemd/system/muster-agent.service': [deploy('muster-agent.service'), 0o644],
    'usr/lib/systemd/system/muster-agent-install.service': [deploy('muster-agent-install.service'), 0o644],
    'usr/lib/systemd/system/muster-agent-install.path': [deploy('muster-agent-install.path'), 0o644],
    'usr/lib/systemd/system/ovsdb-server.service.d/muster-agent.conf': [deploy('debian/ovsdb-access.conf'), 0o644],
    'usr/share/polkit-1/rules.d/60-muster-agent.rules': [deploy('debian/polkit.rules'), 0o644],
    'etc/default/muster-agent': [deploy('debian/default'), 0o644],
    'DEBIAN/postinst': [deploy('debian/postinst'), 0o755],
    'DEBIAN/prerm': [deploy('debian/prerm'), 0o755],
    'DEBIAN/postrm': [deploy('debian/postrm'), 0o755],
  }
}

const control = (version: string) => `Package: muster-agent
Version: ${version}
Architecture: all
Section: admin
Priority: optional
Maintainer: Muster <muster@localhost>
Depends: nodejs (>= 20.19), adduser, systemd
Recommends: polkitd, libvirt-daemon-system, qemu-system, openvswitch-switch
Description: hypervisor agent of the Muster control plane
 Carries out tasks for one compute node on libvirt, QEMU and Open vSwitch,
 and reports its state. Enroll it with "npm run enroll" on the control plane,
 then enable muster-agent.service.
`

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const dist = join(projectDir, 'dist')
  await buildBundles(dist)
  for (const name of Object.keys(bundles)) {
    const { size } = await stat(join(dist, `${name}.mjs`))
    console.log(`dist/${name}.mjs   ${Math.ceil(size / 1024)} KiB`)
  }
  const hasDpkg = await run('dpkg-deb', ['--version']).then(
    () => true,
    () => false,
  )
  if (hasDpkg) console.log((await buildAgentPackage(dist)).slice(projectDir.length + 1))
  else console.log('no Debian package: dpkg-deb is not here (Debian: package dpkg)')
}
