/** Agents of a server (cnapi-behaviour §8.2, §8.4): installed from an address or the image service, and removed again. */
import * as v from 'valibot'
import type { FieldError } from '../../actors/contract/errors.ts'
import { DIGESTS, fileSize } from '../../actors/contract/image.ts'
import { AgentName, agentSource } from '../../actors/contract/tasks/agents.ts'
import { refuseOldAgent } from '../agent-version.ts'
import { type AnyRow, row } from '../row.ts'
import { integer, text } from '../rules.ts'
import { started } from '../tasks.ts'

const taskId = v.object({ id: v.string() })
const installParams = { ...agentSource, size: v.optional(v.pipe(integer('size'), fileSize)) }

export const agentRows: AnyRow[] = [
  row({
    method: 'POST',
    path: '/servers/:server_uuid/install-agent',
    name: 'ServerInstallAgent',
    summary:
      'Installs an agent, Muster\u2019s own included, where the server\u2019s configuration allows it: a Debian package or a tarball (with `package_name`) from `url`, else `image_uuid` from the server\u2019s image service.',
    gate: 'GSR',
    strict: false,
    params: installParams,
    check,
    success: { status: 200, description: 'The task', body: taskId },
    errors: [],
    handle: async ({ server, params, ids, key, reqId }, backend) => {
      const known = Object.fromEntries(Object.entries(params).filter(([, value]) => value !== undefined))
      const task = { task_id: ids.task(), task: 'agent_install' as const, params: known, req_id: reqId }
      return started(await backend.call('cn', server.uuid, 'task_add', task, { ...(key ? { key } : {}), reqId }))
    },
  }),
  row({
    method: 'POST',
    path: '/servers/:server_uuid/uninstall-agents',
    name: 'ServerUninstallAgents',
    summary: 'Removes agents that were installed by install-agent; others are not there, which is success.',
    gate: 'GSR',
    strict: false,
    params: { agents: v.pipe(v.array(v.pipe(text, AgentName), 'value was not an array'), v.maxLength(64)) },
    success: { status: 200, description: 'The task', body: taskId },
    errors: ['PreconditionFailed'],
    handle: async ({ server, params, ids, key, reqId }, backend) => {
      const refusal = refuseOldAgent(server, 'agents_uninstall', '2.8.0')
      if (refusal) return { error: refusal }
      const task = { task_id: ids.task(), task: 'agents_uninstall' as const, params, req_id: reqId }
      return started(await backend.call('cn', server.uuid, 'task_add', task, { ...(key ? { key } : {}), reqId }))
    },
  }),
]

/** What is installed must be named, and known by its checksum. */
function check(params: v.InferOutput<v.ObjectSchema<typeof installParams, undefined>>): FieldError[] {
  if (params.url === undefined) {
    return params.image_uuid === undefined
      ? [{ field: 'image_uuid', code: 'Missing', message: 'is required without url' }]
      : []
  }
  if (DIGESTS.some(name => params[name])) return []
  return [{ field: 'sha256', code: 'Missing', message: 'is required with url (or sha1, md5)' }]
}
