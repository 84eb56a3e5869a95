/** Tasks about the images of a node's storage pool. */
import * as v from 'valibot'
import { ImageName } from '../ids.ts'
import { Image, imageSource } from '../image.ts'
import { hour, minute, nothing, type TaskKind } from './kind.ts'

export const IMAGE_TASKS = {
  /** Fetches an image into the pool unless it is there. */
  image_ensure_present: {
    params: v.object({ image_uuid: ImageName, zfs_storage_pool_name: v.optional(v.string()), ...imageSource }),
    result: nothing,
    limitMs: hour,
    serial: 'none',
  },
  image_get: { params: v.object({ uuid: ImageName }), result: Image, limitMs: minute, serial: 'none' },
  /** Removes an image that no VM's disk stands on. */
  image_delete: { params: v.object({ uuid: ImageName }), result: nothing, limitMs: 10 * minute, serial: 'none' },
} as const satisfies Record<string, TaskKind>
