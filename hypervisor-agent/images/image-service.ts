/** The image service of IMGAPI_URL: `/images/<uuid>` tells what an image's file is, `/images/<uuid>/file` is that file. */
import * as v from 'valibot'
import { Compression, digests, fileSize } from '../../actors/contract/image.ts'
import { HypervisorError } from '../hypervisor.ts'
import { FetchError, type Fetcher } from '../install/fetch.ts'
import type { ImageSource } from './images.ts'

/** Manifests are a few KiB. */
const manifestMaxBytes = 1024 * 1024

const Manifest = v.looseObject({
  name: v.optional(v.string()),
  version: v.optional(v.string()),
  files: v.pipe(
    v.array(v.looseObject({ ...digests, size: v.optional(fileSize), compression: v.optional(Compression) })),
    v.minLength(1),
  ),
})
export type Manifest = v.InferOutput<typeof Manifest>

/** ImageSourceUnknown where the service does not have the image, ImageSourceInvalid where what it says cannot be used. */
export async function manifestOf(web: Fetcher, service: string, id: string, signal: AbortSignal): Promise<Manifest> {
  const url = `${service}/images/${encodeURIComponent(id)}`
  const text = await web.text(url, { maxBytes: manifestMaxBytes, signal }).catch(error => {
    if (!(error instanceof FetchError)) throw error
    throw new HypervisorError('ImageSourceInvalid', error.message, { cause: error })
  })
  if (text === undefined)
    throw new HypervisorError('ImageSourceUnknown', `the image service does not have image ${id}: ${url}`)
  try {
    return v.parse(Manifest, JSON.parse(text))
  } catch (error) {
    throw new HypervisorError('ImageSourceInvalid', `${url} is no manifest of an image with a file`, { cause: error })
  }
}

/** Where the file of an image is, and how it is known. */
export function sourceOf(service: string, id: string, { files }: Manifest): ImageSource {
  const { sha256, sha1, md5, size, compression = 'none' } = files[0]!
  return {
    url: `${service}/images/${encodeURIComponent(id)}/file`,
    digests: { sha256, sha1, md5 },
    compression,
    ...(size === undefined ? {} : { size }),
  }
}
