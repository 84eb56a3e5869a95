/** What a Linux host can boot, told from its files, and how the sysinfo shows it. */
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import * as assert from 'uvu/assert'
import { platformsIn } from '../../gateway/platforms.ts'
import { installedPlatforms } from '../../hypervisor-agent/platforms.ts'
import { suite } from '../suite.ts'

const test = suite('installed kernels')
const roots: string[] = []
test.after(() => {
  for (const root of roots) rmSync(root, { recursive: true, force: true })
})

/** A root folder with these files, and these links. */
function rootWith(files: Record<string, string>, links: Record<string, string> = {}): string {
  const root = mkdtempSync(join(tmpdir(), 'muster-kernels-'))
  roots.push(root)
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(root, path)), { recursive: true })
    writeFileSync(join(root, path), text)
  }
  for (const [path, target] of Object.entries(links)) symlinkSync(target, join(root, path))
  return root
}

const two = {
  'boot/vmlinuz-6.1.0-9-amd64': '',
  'boot/vmlinuz-6.1.0-10-amd64': '',
  'boot/initrd.img-6.1.0-10-amd64': '',
}

test('kernels are the images in /boot; the one that runs and the one that the link leads to are marked', async () => {
  const root = rootWith(
    { ...two, 'boot/vmlinuz-6.1.0-8-amd64.old': '', 'lib/modules/5.10.0/modules.dep': '' },
    { vmlinuz: 'boot/vmlinuz-6.1.0-10-amd64' },
  )
  assert.equal(await installedPlatforms('6.1.0-9-amd64', root), [
    { name: '6.1.0-10-amd64', next: true },
    { name: '6.1.0-9-amd64', running: true },
  ])
})

test('a kernel that is ordered for one boot comes next, also where its name begins another\u2019s', async () => {
  const entry = 'next_entry=gnulinux-advanced-1234>gnulinux-6.1.0-9-amd64-rt-advanced-1234\n'
  const root = rootWith(
    { ...two, 'boot/vmlinuz-6.1.0-9-amd64-rt': '', 'boot/grub/grubenv': `# GRUB Environment Block\n${entry}####` },
    { 'boot/vmlinuz': 'vmlinuz-6.1.0-10-amd64' },
  )
  const next = (await installedPlatforms('6.1.0-9-amd64', root)).filter(platform => platform.next)
  assert.equal(next, [{ name: '6.1.0-9-amd64-rt', next: true }])
})

test('without images the modules tell, and the kernel that runs is listed even without files', async () => {
  const root = rootWith({ 'lib/modules/6.6.1/modules.dep': '' })
  assert.equal(await installedPlatforms('6.7.0', root), [
    { name: '6.6.1', next: true },
    { name: '6.7.0', running: true },
  ])
  assert.equal(await installedPlatforms('6.7.0', rootWith({})), [{ name: '6.7.0', running: true }])
})

test('of several kernels without a link none is called the next', async () => {
  const platforms = await installedPlatforms('6.1.0-9-amd64', rootWith(two))
  assert.is(platforms.length, 2)
  assert.not.ok(platforms.some(platform => platform.next))
})

test('what a host tells can be chosen as boot_platform under the same name', async () => {
  const Platforms = await installedPlatforms('6.1.0-9-amd64', rootWith(two))
  const known = platformsIn({ 'System Type': 'Linux', 'Live Image': '6.1.0-9-amd64', Platforms })
  assert.equal(known, [
    { name: '6.1.0-10-amd64', os: 'linux' },
    { name: '6.1.0-9-amd64', os: 'linux' },
  ])
  const here = await installedPlatforms('0-none')
  assert.ok(here.some(({ name }) => name === '0-none'))
})

test.run()
