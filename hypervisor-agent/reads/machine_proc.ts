/**
 * What runs in a VM, by process id: processes as its guest agent lists them, else the threads of its QEMU. `source` says which, for the
 * ids of a guest and those of its host have nothing to do with each other.
 */
import { type Hypervisor, HypervisorError } from '../hypervisor.ts'
import type { ReadHandlers } from './read.ts'

export const machine_proc: ReadHandlers['machine_proc'] = async ({ hypervisor }, { uuid }) => {
  const threads = await hypervisor.listThreads(uuid)
  const inGuest = await processesIn(hypervisor, uuid)
  if (inGuest) return inGuest
  if (threads.length === 0) {
    throw new HypervisorError(
      'GuestAgentNotConnected',
      `VM ${uuid} has no guest agent, and its QEMU cannot be looked into`,
    )
  }
  const shown = threads.map(({ id, ...thread }) => [String(id), { pid: id, ...thread, source: 'qemu' }])
  return Object.fromEntries(shown)
}

/** Asked in portions: a guest agent's answer is short. */
const perPortion = 50
const portionsMax = 40
const portionMs = 4_000

/**
 * Name, state, parent, user and system ticks of each process that is no thread of the kernel, from behind that id on in the order of
 * their texts: processes come and go between two portions, so their number says nothing. For any /bin/sh.
 */
const script = (after: string) => `LC_ALL=C
n=0
for f in /proc/[0-9]*/stat; do
  p=\${f#/proc/}
  [ "\${p%/stat}" \\> "${after}" ] || continue
  read -r l 2>/dev/null <"$f" || continue
  name=\${l%)*}
  set -- \${l##*) }
  [ "$2" = 2 ] && continue
  n=$((n+1))
  echo "$name) $1 $2 \${12} \${13}"
  [ $n -ge ${perPortion} ] && break
done
exit 0
`

interface GuestProcess {
  pid: number
  name: string
  state: string
  ppid: number
  cpu_ms: number
  source: 'guest'
}

/** Undefined where no guest agent answers. */
async function processesIn(hypervisor: Hypervisor, uuid: string): Promise<Record<string, GuestProcess> | undefined> {
  if (!(await hypervisor.hasGuestAgent(uuid).catch(() => false))) return undefined
  const found: Record<string, GuestProcess> = {}
  let last = ''
  for (let portion = 0; portion < portionsMax; portion += 1) {
    const { output } = await hypervisor.runInGuest(uuid, script(last), { timeoutMs: portionMs })
    const processes = output.split('\n').flatMap(line => readLine(line) ?? [])
    for (const process of processes) found[process.pid] = process
    last = String(processes.at(-1)?.pid ?? '')
    if (processes.length < perPortion) break
  }
  return Object.keys(found).length > 0 ? found : undefined
}

/** A name may hold blanks and brackets; a line that is not whole is none. */
function readLine(line: string): GuestProcess | undefined {
  const [, pid, name = '', state = '', ppid, user, system] = /^(\d+) \((.*)\) (\S) (\d+) (\d+) (\d+)$/.exec(line) ?? []
  if (pid === undefined) return undefined
  const cpu_ms = (Number(user) + Number(system)) * 10
  return { pid: Number(pid), name, state, ppid: Number(ppid), cpu_ms, source: 'guest' }
}
