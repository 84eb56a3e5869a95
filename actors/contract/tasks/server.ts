/** Tasks about a node itself: what setup, reboot, factory reset and the update of its NICs are made of, and CNAPI's older ways to a node. */
import * as v from 'valibot'
import { Hostname, Mac, NicTag } from '../ids.ts'
import { Sysinfo } from '../server.ts'
import { hour, minute, nothing, type TaskKind } from './kind.ts'

/** One thing a node needs, and whether it is as it should be; `message` says it for a person. */
export const NodeCheck = v.object({ name: v.string(), ok: v.boolean(), message: v.string() })
export type NodeCheck = v.InferOutput<typeof NodeCheck>

/** Which NIC gets, loses or has which nic tags, as CNAPI words it. */
export const NicTagging = v.object({ mac: Mac, nic_tags_provided: v.pipe(v.array(NicTag), v.maxLength(64)) })
export type NicTagging = v.InferOutput<typeof NicTagging>

/** What is run comes in one message and is kept in a task's record, so it is bounded: characters. */
export const SCRIPT_MAX = 256 * 1024
/** Longest a script may run, ms. */
export const SCRIPT_LIMIT_MS = hour
const script = v.pipe(v.string(), v.minLength(1, 'must not be empty'), v.maxLength(SCRIPT_MAX))
/** Neither a variable nor an argument of a process can hold a NUL. */
const word = v.pipe(v.string(), v.maxLength(32 * 1024), v.regex(/^[^\0]*$/, 'must not contain NUL'))
const variable = v.pipe(v.string(), v.regex(/^[A-Za-z_][A-Za-z0-9_]{0,127}$/, 'must be the name of a variable'))
const withSysinfo = v.object({ sysinfo: Sysinfo })

export const SERVER_TASKS = {
  /** Looks whether the node has what a compute node needs; ends well whatever it finds. */
  server_check: {
    params: v.object({}),
    result: v.object({ checks: v.array(NodeCheck) }),
    limitMs: 2 * minute,
    serial: 'none',
  },
  /** Makes the pool of STORAGE_POOL where it is missing; started and autostarted. */
  server_setup_storage: { params: v.object({}), result: nothing, limitMs: 10 * minute, serial: 'node' },
  /** update: adds the tags to the NIC; delete: takes them away; replace: the NIC has these. The result's sysinfo shows it. */
  server_update_nics: {
    params: v.object({
      action: v.optional(v.picklist(['update', 'replace', 'delete']), 'replace'),
      nics: v.pipe(v.array(NicTagging), v.maxLength(128)),
    }),
    result: withSysinfo,
    limitMs: 2 * minute,
    serial: 'node',
  },
  server_set_hostname: { params: v.object({ hostname: Hostname }), result: nothing, limitMs: minute, serial: 'node' },
  /** Runs a script with bash, where the agent's configuration allows it. What it exits with is no failure of the task. */
  server_run_script: {
    params: v.object({ script }),
    result: v.object({ exit_code: v.nullable(v.number()), stdout: v.string(), stderr: v.string() }),
    limitMs: SCRIPT_LIMIT_MS + minute,
    serial: 'none',
  },
  /** Ends well as soon as the reboot is certain to come; then the node goes. */
  server_reboot: { params: v.object({}), result: nothing, limitMs: 5 * minute, serial: 'node' },
  /** Takes away what Muster made on the node: networks, leftover disks, nic tags, installers. Not while there are VMs. */
  server_factory_reset: { params: v.object({}), result: nothing, limitMs: 30 * minute, serial: 'node' },
  server_sysinfo: { params: v.object({}), result: withSysinfo, limitMs: minute, serial: 'none' },
  /** CNAPI's execute (cnapi-behaviour §8.5). `timeout` in ms; `env` replaces the environment. */
  command_execute: {
    params: v.object({
      script,
      args: v.optional(v.pipe(v.array(word), v.maxLength(256)), []),
      env: v.optional(v.record(variable, word)),
      timeout: v.optional(v.pipe(v.number(), v.minValue(1), v.maxValue(SCRIPT_LIMIT_MS))),
    }),
    result: v.object({
      err: v.nullable(v.string()),
      exitCode: v.nullable(v.number()),
      signal: v.nullable(v.string()),
      stdout: v.string(),
      stderr: v.string(),
    }),
    limitMs: SCRIPT_LIMIT_MS + minute,
    serial: 'none',
  },
  /** CNAPI's recovery configuration of encrypted pools. No Linux node has the mechanism; agents of another make may. */
  recovery_config: {
    params: v.object({
      action: v.picklist(['stage', 'activate']),
      recovery_uuid: v.string(),
      pivtoken: v.string(),
      template: v.optional(v.string()),
      token: v.optional(v.string()),
    }),
    result: nothing,
    limitMs: 5 * minute,
    serial: 'node',
  },
} as const satisfies Record<string, TaskKind>
