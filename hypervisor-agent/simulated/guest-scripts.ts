/** The guest agent of simulated guests: a script becomes part of what the disk holds, and `exit <n>` in it is its end. */
import type { GuestScripts } from '../guest-scripts.ts'
import { HypervisorError } from '../hypervisor.ts'
import type { Guest } from './guests.ts'
import { contentOf } from './snapshots.ts'

export interface GuestScriptParts {
  call<T>(name: keyof GuestScripts, uuid: string, effect: () => T): Promise<T>
  need(uuid: string): Guest
  save(): void
}

export function simulatedGuestScripts({ call, need, save }: GuestScriptParts): GuestScripts {
  const hasAgent = (guest: Guest) => guest.state === 'running' && guest.guest_agent === true
  return {
    hasGuestAgent: uuid => call('hasGuestAgent', uuid, () => hasAgent(need(uuid))),
    runInGuest: (uuid, script) =>
      call('runInGuest', uuid, () => {
        const guest = need(uuid)
        if (guest.state !== 'running') throw new HypervisorError('VmNotRunning', `the VM ${uuid} is not running`)
        if (!hasAgent(guest))
          throw new HypervisorError('GuestAgentNotConnected', `no guest agent answers in VM ${uuid}`)
        const content = contentOf(guest)
        guest.content = { ...content, disk: `${content.disk}+${script}` }
        save()
        return { exit_code: Number(/exit (\d+)/.exec(script)?.[1] ?? 0), output: '' }
      }),
  }
}
