/**
 * What CNAPI's docker endpoints ask of a node (cnapi-behaviour §5.6, §9.4): programs and files inside a guest, its statistics, and builds.
 * Each task ends when its stream can be opened; docs/guest-streams.md says what goes over it.
 */
import * as v from 'valibot'
import { minute, type TaskKind, vmParams } from './kind.ts'

const text = v.string('value was not a string')
const flag = v.optional(v.boolean("value was not 'true' or 'false'"))
/** No program is given a text with a NUL byte. */
const argument = v.pipe(text, v.maxLength(16_384, 'is too long'), v.regex(/^[^\0]*$/, 'holds a NUL character'))
const notObject = () => 'value is not an object.'

/** An absolute path in a guest. */
export const GuestPath = v.pipe(
  text,
  v.maxLength(4096, 'is too long'),
  v.regex(/^\/[^\0]*$/, 'is not an absolute path without NUL characters'),
)

/** A program to run in a guest, in Docker's words. What else Docker says of one is accepted and means nothing for a VM. */
export const ExecCommand = v.looseObject(
  {
    Cmd: v.pipe(
      v.array(argument, 'value was not an array'),
      v.minLength(1, 'names no program'),
      v.maxLength(256, 'has too many arguments'),
      v.check(([program = '']) => /^[^-]/.test(program), 'names no program'),
    ),
    AttachStdin: flag,
    AttachStdout: flag,
    AttachStderr: flag,
    AttachConsole: flag,
    Tty: flag,
    Detach: flag,
    Logs: flag,
    Env: v.optional(
      v.pipe(
        v.array(v.pipe(argument, v.regex(/^[A-Za-z_][A-Za-z0-9_]*=/, 'is not NAME=value')), 'value was not an array'),
        v.maxLength(256, 'has too many variables'),
      ),
    ),
    WorkingDir: v.optional(v.union([v.literal(''), GuestPath], 'is not an absolute path')),
    /** A user or uid of the guest, with a group after a colon. */
    User: v.optional(
      v.pipe(text, v.regex(/^([A-Za-z0-9_][A-Za-z0-9_.-]{0,31}(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,31})?)?$/, 'is no user')),
    ),
  },
  notObject,
)
export type ExecCommand = v.InferOutput<typeof ExecCommand>

export const CopyMode = v.picklist(['read', 'write', 'stat'], 'is not read, write or stat')
export type CopyMode = v.InferOutput<typeof CopyMode>

/** Docker's description of a path: `mode` as Go numbers it, `mtime` as RFC 3339. */
export const PathStat = v.object({
  name: v.string(),
  size: v.number(),
  mode: v.number(),
  mtime: v.string(),
  linkTarget: v.string(),
})
export type PathStat = v.InferOutput<typeof PathStat>

export const StatsPayload = v.looseObject({ stream: flag }, notObject)

const NameOfArgument = v.pipe(text, v.regex(/^[A-Za-z_][A-Za-z0-9_.-]{0,127}$/, 'is not a name'))
/** What Docker's build takes and buildah can do; the rest is accepted and ignored. */
export const BuildPayload = v.looseObject(
  {
    /** Path inside the context. */
    dockerfile: v.optional(
      v.pipe(text, v.maxLength(1024), v.regex(/^(?!\/)(?!(.*\/)?\.\.(\/|$))[^\0]+$/, 'is not a path in the context')),
      'Dockerfile',
    ),
    /** Name of the image, with a tag after a colon. */
    t: v.optional(
      v.pipe(text, v.regex(/^[a-z0-9][a-z0-9._/-]{0,200}(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?$/, 'is no tag')),
    ),
    target: v.optional(v.pipe(text, v.regex(/^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$/, 'is no stage'))),
    buildargs: v.optional(v.record(NameOfArgument, argument)),
    labels: v.optional(v.record(NameOfArgument, argument)),
    nocache: flag,
  },
  notObject,
)
export type BuildPayload = v.InferOutput<typeof BuildPayload>

/** Where the node waits for one connection that shows the token. */
export const StreamAddress = v.object({ host: v.string(), port: v.number(), token: v.string() })
export type StreamAddress = v.InferOutput<typeof StreamAddress>

/** Longest waits for a stream to be ready (cnapi-behaviour §5.4), ms. */
export const DOCKER_CAP_MS = {
  docker_exec: 60_000,
  docker_copy: 10_000,
  docker_stats: 30_000,
  docker_build: 30_000,
} as const

export const DOCKER_TASKS = {
  docker_exec: {
    params: v.object({ ...vmParams, command: ExecCommand }),
    /** Empty for a program that is detached. */
    result: v.partial(StreamAddress),
    limitMs: minute,
    serial: 'none',
  },
  docker_copy: {
    params: v.object({
      ...vmParams,
      path: GuestPath,
      mode: CopyMode,
      no_overwrite_dir: v.optional(v.boolean(), false),
    }),
    result: v.object({ ...StreamAddress.entries, containerPathStat: PathStat }),
    limitMs: minute,
    serial: 'none',
  },
  docker_stats: {
    params: v.object({ ...vmParams, payload: v.optional(StatsPayload, {}) }),
    result: StreamAddress,
    limitMs: minute,
    serial: 'none',
  },
  docker_build: {
    params: v.object({ ...vmParams, payload: v.optional(BuildPayload, {}) }),
    result: StreamAddress,
    limitMs: minute,
    serial: 'none',
  },
} as const satisfies Record<string, TaskKind>
