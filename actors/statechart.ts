/** A machine's statechart as it runs: as JSON, and as a Mermaid `stateDiagram-v2`. Both are read off the machine itself. */
import type { AnyStateMachine, AnyStateNode } from 'xstate'

export interface Statechart {
  id: string
  initial: string
  states: {
    name: string
    final: boolean
    transitions: { event: string; guard?: string; target: string; effects: string[] }[]
  }[]
}

export function statechart(machine: AnyStateMachine): Statechart {
  return {
    id: machine.id,
    initial: names(machine.root.initial.target)[0] ?? '',
    states: nodes(machine.root).map(node => ({
      name: nameOf(node),
      final: node.type === 'final',
      transitions: [...node.transitions.values(), ...(node.always ? [node.always] : [])].flat().flatMap(transition => {
        const targets = transition.target ? names(transition.target) : [nameOf(node)]
        return targets.map(target => ({
          event: shortEvent(transition.eventType || 'always'),
          ...(transition.guard ? { guard: guardName(transition.guard) } : {}),
          target,
          effects: transition.actions.flatMap(action =>
            typeof action === 'object' && 'type' in action && !String(action.type).startsWith('xstate.')
              ? [String(action.type)]
              : [],
          ),
        }))
      }),
    })),
  }
}

/** Arrows between different states only, one label an arrow: the picture shows where things go, the JSON shows all. */
export function mermaid(chart: Statechart): string {
  const arrows = new Map<string, Set<string>>()
  for (const { name, transitions } of chart.states) {
    for (const { event, target } of transitions) {
      if (target === name) continue
      const arrow = `${name} --> ${target}`
      arrows.set(arrow, (arrows.get(arrow) ?? new Set()).add(event))
    }
  }
  const lines = [...arrows].map(([arrow, events]) => `  ${arrow}: ${[...events].join(', ')}`)
  const ends = chart.states.filter(({ final }) => final).map(({ name }) => `  ${name} --> [*]`)
  return ['stateDiagram-v2', `  [*] --> ${chart.initial}`, ...lines, ...ends, ''].join('\n')
}

function nodes(root: AnyStateNode): AnyStateNode[] {
  return Object.values(root.states).flatMap(node => [node, ...nodes(node)])
}

const names = (targets: readonly AnyStateNode[]) => targets.map(nameOf)
const nameOf = (node: AnyStateNode) => node.path.join('_')

/** `xstate.after.operationLimit.vm.starting` -> `after operationLimit` */
function shortEvent(type: string): string {
  const [, delay] = /^xstate\.after\.([^.]+)/.exec(type) ?? []
  return delay ? `after ${delay}` : type
}

function guardName(guard: unknown): string {
  if (typeof guard === 'string') return guard
  if (typeof guard === 'object' && guard !== null && 'type' in guard) {
    const params =
      'params' in guard && typeof guard.params === 'object' ? Object.values(guard.params ?? {}).join(' ') : ''
    return [String(guard.type), params].filter(Boolean).join(' ')
  }
  return 'function'
}
