/** A hypervisor one of whose calls fails, for tests that try every call of a task. */
import { type Hypervisor, HypervisorError } from '../../hypervisor-agent/hypervisor.ts'

/** Fails the n-th call, before its effect or after it; `reached` hears its name. */
export function failingAt(when: 'before' | 'after', nth: number, reached: (name: string) => void) {
  let calls = 0
  return (hypervisor: Hypervisor): Hypervisor =>
    new Proxy(hypervisor, {
      get: (target, name, receiver) => {
        const member = Reflect.get(target, name, receiver)
        if (typeof member !== 'function' || name === 'onChange') return member
        return async (...args: unknown[]) => {
          calls += 1
          if (calls !== nth) return Reflect.apply(member, target, args)
          reached(String(name))
          if (when === 'after') await Reflect.apply(member, target, args)
          throw new HypervisorError('HypervisorError', `${String(name)} was told to fail`)
        }
      },
    })
}
