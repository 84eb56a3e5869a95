/**
 * Programs, files and statistics of a VM, and builds beside it, in CNAPI's docker endpoints (cnapi-behaviour §9.4): the answer says where
 * the node waits for one connection that shows the token (docs/guest-streams.md).
 */
import * as v from 'valibot'
import { type FieldError, rejection } from '../../actors/contract/errors.ts'
import {
  BuildPayload,
  CopyMode,
  DOCKER_CAP_MS,
  DOCKER_TASKS,
  ExecCommand,
  GuestPath,
  StatsPayload,
  StreamAddress,
} from '../../actors/contract/tasks/docker.ts'
import type { Vm } from '../backend.ts'
import { type Answer, type AnyRow, row } from '../row.ts'
import { booleanWord, objectOf, text } from '../rules.ts'
import { runTask } from '../tasks.ts'

const errors = [
  'VmNotRunning',
  'TooManyStreams',
  'AgentNotConnected',
  'TaskNotSupported',
  'HypervisorUnavailable',
  'HypervisorError',
  'RequestTimedOut',
] as const
const ofGuest = [...errors, 'VmNotFound', 'GuestAgentNotConnected'] as const
const where = { status: 200, description: 'Where the stream is, and the token that opens it once', body: StreamAddress }
const jobid = v.optional(text)
const shown = (result: object): Answer => ({ status: 200, body: result })

const copyParams = {
  jobid,
  path: v.optional(GuestPath),
  mode: v.optional(CopyMode),
  no_overwrite_dir: v.optional(booleanWord),
  payload: v.optional(objectOf({ path: v.optional(GuestPath), mode: v.optional(CopyMode) })),
}

export const dockerRows: AnyRow[] = [
  row({
    method: 'POST',
    path: '/servers/:server_uuid/vms/:uuid/docker-exec',
    name: 'VmDockerExec',
    summary:
      'Runs a program in a VM through its QEMU guest agent; its input and output go over the stream. Detached, it is begun at once.',
    gate: 'GSV',
    strict: false,
    params: { jobid, command: ExecCommand },
    success: { ...where, body: v.partial(StreamAddress) },
    errors: [...ofGuest, 'InvalidArgument'],
    handle: (incoming, backend) => {
      const { vm, params } = incoming
      const order = { task: 'docker_exec' as const, params: { uuid: vm.uuid, command: params.command } }
      return runTask(backend, incoming, order, { capMs: DOCKER_CAP_MS.docker_exec, done: shown })
    },
  }),
  row({
    method: 'POST',
    path: '/servers/:server_uuid/vms/:uuid/docker-copy',
    name: 'VmDockerCopy',
    summary:
      'Says what a path in a running VM is, and gives it (`read`) or takes something into it (`write`) as a tar archive over the stream.',
    gate: 'GSV',
    strict: false,
    params: copyParams,
    check: ({ path, payload }): FieldError[] =>
      (path ?? payload?.path) ? [] : [{ field: 'path', code: 'Missing', message: 'is required' }],
    success: { ...where, body: DOCKER_TASKS.docker_copy.result },
    errors: [...ofGuest, 'FileNotFound', 'PathNotDirectory', 'DockerCopyStoppedContainerNoPlatformSupport'],
    handle: (incoming, backend) => {
      const { vm, params: given } = incoming
      const { payload = {}, path = payload.path ?? '', mode = payload.mode ?? 'read', no_overwrite_dir = false } = given
      const params = { uuid: vm.uuid, path, mode, no_overwrite_dir }
      const order = { task: 'docker_copy' as const, params }
      return runTask(backend, incoming, order, { capMs: DOCKER_CAP_MS.docker_copy, done: shown })
    },
  }),
  row({
    method: 'POST',
    path: '/servers/:server_uuid/vms/:uuid/docker-stats',
    name: 'VmDockerStats',
    summary:
      'Statistics of a running VM each second in Docker\u2019s shape, or once with `payload.stream` false. Needs no guest agent.',
    gate: 'GSV',
    strict: false,
    params: { jobid, payload: v.optional(StatsPayload, {}) },
    success: where,
    errors,
    handle: async (incoming, backend) => {
      const { vm, params } = incoming
      const order = { task: 'docker_stats' as const, params: { uuid: vm.uuid, payload: params.payload } }
      return asNotFound(await runTask(backend, incoming, order, { capMs: DOCKER_CAP_MS.docker_stats, done: shown }), vm)
    },
  }),
  row({
    method: 'POST',
    path: '/servers/:server_uuid/vms/:uuid/docker-build',
    name: 'VmDockerBuild',
    summary:
      'Builds a container image with the node\u2019s buildah from a context that is sent over the stream, where the agent allows it (DOCKER_BUILD).',
    gate: 'GSV',
    strict: false,
    params: { jobid, payload: v.optional(BuildPayload, {}) },
    success: where,
    errors: [...errors, 'VmNotFound', 'BuildNotAllowed', 'BuildahNotInstalled'],
    handle: (incoming, backend) => {
      const { vm, params } = incoming
      const order = { task: 'docker_build' as const, params: { uuid: vm.uuid, payload: params.payload } }
      return runTask(backend, incoming, order, { capMs: DOCKER_CAP_MS.docker_build, done: shown })
    },
  }),
]

/** CNAPI's word for a VM that its node does not have. */
function asNotFound(answer: Answer, vm: Vm): Answer {
  if (!('error' in answer) || answer.error.code !== 'VmNotFound') return answer
  return { ...answer, error: rejection('ResourceNotFound', `VM ${vm.uuid} not found`) }
}
