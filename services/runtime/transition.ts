/**
 * XState's `transition`, without building an actor for each call: one inert actor per machine is enough, since durable machines
 * neither spawn nor invoke. Measured three to five times faster, with the same snapshots and actions.
 */
import { type AnyMachineSnapshot, type AnyStateMachine, createActor, type ExecutableActionObject } from 'xstate'

/** The next snapshot and the actions that lead to it; nothing is executed. Throws what guards, assigns and loops throw. */
export function transition(
  machine: AnyStateMachine,
  snapshot: AnyMachineSnapshot,
  event: { type: string },
): [AnyMachineSnapshot, ExecutableActionObject[]] {
  const actions: ExecutableActionObject[] = []
  const scope = { ...scopeOf(machine), actionExecutor: (action: ExecutableActionObject) => void actions.push(action) }
  return [machine.transition(snapshot, event, scope as Scope) as AnyMachineSnapshot, actions]
}

type Scope = Parameters<AnyStateMachine['transition']>[2]

const scopes = new WeakMap<AnyStateMachine, object>()

function scopeOf(machine: AnyStateMachine): object {
  let scope = scopes.get(machine)
  if (!scope) {
    const self = createActor(machine)
    const nothing = () => {}
    scope = {
      self,
      system: self.system,
      id: '',
      sessionId: '',
      defer: nothing,
      logger: nothing,
      stopChild: nothing,
      emit: nothing,
    }
    scopes.set(machine, scope)
  }
  return scope
}
