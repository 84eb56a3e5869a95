/** Images made of a VM (cnapi-behaviour §9.3): every parameter that is wrong is told at once, then it becomes a task. */
import * as v from 'valibot'
import { ImageName } from '../../actors/contract/ids.ts'
import { Compression, FetchUrl } from '../../actors/contract/image.ts'
import { imageOrder } from '../../actors/contract/tasks/vm-images.ts'
import { type AnyRow, row } from '../row.ts'
import { booleanWord, objectOf, text } from '../rules.ts'
import { started } from '../tasks.ts'

/** Most bytes of a request: a script of 64 KiB and its manifest. */
const bodyMaxBytes = 256 * 1024

export const vmImageRows: AnyRow[] = [
  row({
    method: 'POST',
    path: '/servers/:server_uuid/vms/:uuid/images',
    name: 'VmImagesCreate',
    summary:
      'Makes an image of a VM’s first disk in its node’s pool, whole or only what differs from the image it was made from, and gives it to the image service at `imgapi_url`. The VM is stopped, or prepared by a script that its guest agent runs.',
    gate: 'GSV',
    strict: false,
    params: {
      jobid: v.optional(text),
      manifest: objectOf({ uuid: ImageName, name: v.optional(text), version: v.optional(text) }),
      compression: v.optional(Compression),
      incremental: v.optional(booleanWord),
      imgapi_url: v.optional(FetchUrl),
      prepare_image_script: imageOrder.prepare_image_script,
    },
    maxBodyBytes: bodyMaxBytes,
    success: {
      status: 200,
      description: 'The task; an illegal verb ends as a failed task',
      body: v.object({ id: v.string() }),
    },
    errors: ['TooManyWaiting', 'PayloadTooLarge'],
    handle: async ({ vm, params: { jobid: _, ...params }, ids, key, reqId }, backend) =>
      started(await backend.call('vm', vm.uuid, 'create_image', { task_id: ids.task(), params }, { key, reqId })),
  }),
]
