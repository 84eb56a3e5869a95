/** Images of a server's storage pool (cnapi-behaviour §8.2): fetched, shown, and removed while no VM stands on them. */
import * as v from 'valibot'
import type { FieldError } from '../../actors/contract/errors.ts'
import { rejection } from '../../actors/contract/errors.ts'
import { ImageName } from '../../actors/contract/ids.ts'
import { DIGESTS, digests, fileSize, Image, imageSource } from '../../actors/contract/image.ts'
import type { Outcome } from '../backend.ts'
import { type Answer, type AnyRow, row } from '../row.ts'
import { integer, objectOf, text } from '../rules.ts'
import { runTask, started } from '../tasks.ts'
import { read } from './vms.ts'

/** Longest wait of ImageGet (cnapi-behaviour §5.4), and of a removal, ms. */
const getCapMs = 60_000
const deleteCapMs = 120_000

const readErrors = ['AgentNotConnected', 'HypervisorUnavailable', 'HypervisorError'] as const

/** A manifest's way to say it; the first file is the image. */
const File = objectOf({ ...digests, size: imageSource.size, compression: imageSource.compression })
const ensureParams = {
  image_uuid: v.pipe(text, ImageName),
  zfs_storage_pool_name: v.optional(text),
  imgapiPeers: v.optional(v.array(v.unknown(), 'value was not an array')),
  ...imageSource,
  // A query string knows no numbers.
  size: v.optional(v.pipe(integer('size'), fileSize)),
  files: v.optional(
    v.pipe(v.array(File, 'value was not an array'), v.minLength(1, 'must name a file'), v.maxLength(8)),
  ),
}
type EnsureParams = v.InferOutput<v.ObjectSchema<typeof ensureParams, undefined>>

export const imageRows: AnyRow[] = [
  row({
    method: 'POST',
    path: '/servers/:server_uuid/ensure-image',
    name: 'ServerEnsureImage',
    summary:
      'Fetches an image into the server\u2019s pool unless it is there: from `url`, else from the server\u2019s image service. `imgapiPeers` is ignored.',
    ...ensuring(),
  }),
  row({
    method: 'GET',
    path: '/servers/:server_uuid/ensure-image',
    name: 'ServerEnsureImageByGet',
    summary: 'ServerEnsureImage by the method that CNAPI\u2019s document names.',
    ...ensuring(),
  }),
  row({
    method: 'GET',
    path: '/servers/:server_uuid/images',
    name: 'ImageList',
    summary: 'The images of a server\u2019s pool.',
    gate: 'GS',
    strict: false,
    params: {},
    success: { status: 200, description: 'Images', body: v.array(Image) },
    errors: readErrors,
    handle: async ({ server, reqId }, backend) => {
      const outcome: Outcome<unknown> = await read(backend, server, 'image_list', {}, reqId)
      return 'error' in outcome ? outcome : { status: 200, body: outcome.value }
    },
  }),
  row({
    method: 'GET',
    path: '/servers/:server_uuid/images/:uuid',
    name: 'ImageGet',
    summary: 'An image of a server\u2019s pool, and where it came from.',
    gate: 'GS',
    strict: false,
    params: { uuid: ImageName, jobid: v.optional(text) },
    success: { status: 200, description: 'The image', body: Image },
    errors: ['RequestTimedOut', ...readErrors],
    handle: async (incoming, backend) => {
      const { uuid } = incoming.params
      const order = { task: 'image_get' as const, params: { uuid } }
      const done = (image: object): Answer => ({ status: 200, body: image })
      return asNotFound(await runTask(backend, incoming, order, { capMs: getCapMs, done }), uuid)
    },
  }),
  row({
    method: 'DELETE',
    path: '/servers/:server_uuid/images/:uuid',
    name: 'ImageDelete',
    summary: 'Removes an image from a server\u2019s pool; not while disks of VMs stand on it.',
    gate: 'GSR',
    strict: false,
    params: { uuid: ImageName },
    success: { status: 204, description: 'It is gone' },
    errors: ['ImageInUse', 'RequestTimedOut', ...readErrors],
    handle: async (incoming, backend) => {
      const { uuid } = incoming.params
      const order = { task: 'image_delete' as const, params: { uuid } }
      const done = (): Answer => ({ status: 204 })
      return asNotFound(await runTask(backend, incoming, order, { capMs: deleteCapMs, done }), uuid)
    },
  }),
]

/** What both ways to ensure an image share. */
function ensuring() {
  return {
    gate: 'GSR',
    strict: true,
    params: ensureParams,
    check,
    success: { status: 200, description: 'The task', body: v.object({ id: v.string() }) },
    errors: [],
    handle: async ({ server, params, ids, key, reqId }, backend) => {
      const { imgapiPeers: _, files, ...given } = params
      const { sha256, sha1, md5, size, compression } = files?.[0] ?? {}
      const said = Object.entries({ sha256, sha1, md5, size, compression, ...given })
      const known = Object.fromEntries(said.filter(([, value]) => value !== undefined))
      const task = { task_id: ids.task(), task: 'image_ensure_present' as const, params: known, req_id: reqId }
      return started(await backend.call('cn', server.uuid, 'task_add', task, { ...(key ? { key } : {}), reqId }))
    },
  } satisfies Partial<Parameters<typeof row<typeof ensureParams, 'GSR'>>[0]>
}

/** What comes from anywhere must be known by its checksum. */
function check({ url, files, ...given }: EnsureParams): FieldError[] {
  const isKnown = DIGESTS.some(name => given[name] ?? files?.[0]?.[name])
  if (url === undefined || isKnown) return []
  return [{ field: 'sha256', code: 'Missing', message: 'is required with url (or sha1, md5)' }]
}

/** CNAPI's word for what its document promises (§1.4). */
function asNotFound(answer: Answer, uuid: string): Answer {
  if (!('error' in answer) || answer.error.code !== 'ImageNotFound') return answer
  return { ...answer, error: rejection('ResourceNotFound', `Image ${uuid} not found`) }
}
