/**
 * The real QEMU guest agent for lab guests: Debian's, with the libraries it needs, as a tar archive that is a disk of the guest. It takes
 * no room in the image that every guest boots.
 */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { command } from './command.ts'
import type { GuestConsole } from './console.ts'
import type { Lab } from './lab.ts'

const program = '/usr/sbin/qemu-ga'

/** Makes an image of the pool that holds it; its name. */
export async function agentImage(lab: Lab): Promise<string> {
  const name = 'lab-guest-agent'
  const said = await command('ldd', [program])
  const libraries = [...said.matchAll(/(\/\S+) \(0x/g)].map(([, file]) => file as string)
  const folder = join(lab.folder, name)
  const archive = `${folder}.tar`
  await command('tar', ['-C', '/', '-h', '-cf', archive, ...[program, ...libraries].map(file => file.slice(1))])
  // Whole MiB: libvirt rounds as it likes otherwise.
  await command('truncate', ['-s', '%1M', archive])
  const bytes = (await command('stat', ['-c', '%s', archive])).trim()
  await lab.virsh('vol-create-as', lab.pool, name, bytes, '--format', 'raw')
  await lab.virsh('vol-upload', name, archive, '--pool', lab.pool)
  await lab.virsh('pool-refresh', lab.pool)
  await writeFile(archive, '')
  return name
}

/** Starts it in a guest whose disk of this letter is made from that image. */
export async function startAgent(console: GuestConsole, disk: string): Promise<void> {
  const steps = [
    `tar xf /dev/${disk} -C /`,
    'modprobe virtio_console',
    'mkdir -p /run /var/run /tmp /etc',
    'port=$(basename $(dirname $(grep -ls org.qemu.guest_agent /sys/class/virtio-ports/*/name)))',
    '(/usr/sbin/qemu-ga -m virtio-serial -p /dev/$port -t /run </dev/null >/ga.log 2>&1 &)',
    'echo started-$?',
  ]
  await console.ask(`sh ${steps.join('; ')}`, /SH .*started-0/)
}
