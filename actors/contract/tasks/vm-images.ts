/** The task that makes an image of a VM (cnapi-behaviour §5.6, §9.3). */
import * as v from 'valibot'
import { ImageName } from '../ids.ts'
import { Compression, FetchUrl } from '../image.ts'
import { VmSummary } from '../vm.ts'
import { hour, type TaskKind, vmParams } from './kind.ts'

/** Longest script that is run in a guest, characters. */
const scriptMax = 64 * 1024

/** What a caller orders. The image is called by the manifest's uuid; all else in the manifest is kept as it is. */
export const imageOrder = {
  manifest: v.looseObject({ uuid: ImageName, name: v.optional(v.string()), version: v.optional(v.string()) }),
  /** Of the file that goes to `imgapi_url`; what stays in the pool is a plain qcow2, since VMs are made from it. */
  compression: v.optional(Compression, 'none'),
  /** Only what differs from the image that the disk was made from. */
  incremental: v.optional(v.boolean(), false),
  /** An image service that is given manifest and file. */
  imgapi_url: v.optional(FetchUrl),
  /** Run by the guest's /bin/sh before the image is made; afterwards the VM is as it was. */
  prepare_image_script: v.optional(v.pipe(v.string(), v.maxLength(scriptMax, 'is too long'))),
}

export const VM_IMAGE_TASKS = {
  machine_create_image: {
    params: v.object({ ...vmParams, ...imageOrder }),
    /** `image`: the manifest, with `files`, and `origin` for an incremental one. */
    result: v.object({ vm: v.nullable(VmSummary), image: v.looseObject({ uuid: v.string() }) }),
    limitMs: hour,
    serial: 'vm',
  },
} as const satisfies Record<string, TaskKind>
