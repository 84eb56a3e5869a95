/** Images: where a node takes one from, and how it looks once it is in the node's pool. */
import * as v from 'valibot'
import { ImageName } from './ids.ts'

const digest = (algorithm: string, digits: number) =>
  v.optional(
    v.pipe(
      v.string(),
      v.regex(new RegExp(`^[0-9a-f]{${digits}}$`, 'i'), `must be a ${algorithm} of ${digits} hexadecimal digits`),
      v.toLowerCase(),
    ),
  )

/** An address that a node may be told to fetch. */
export const FetchUrl = v.pipe(
  v.string(),
  v.maxLength(2048, 'must have at most 2048 characters'),
  v.regex(/^https?:\/\/[^\s]+$/, 'must be an http or https URL'),
)

/** Checksums of a file as it is fetched, in hexadecimal digits; every one that is given is compared. */
export const digests = { sha256: digest('SHA-256', 64), sha1: digest('SHA-1', 40), md5: digest('MD5', 32) }
export const DIGESTS = Object.keys(digests) as (keyof typeof digests)[]
export type Digests = { [name in keyof typeof digests]?: string | undefined }

export const ImageFormat = v.picklist(['qcow2', 'raw'], 'must be qcow2 or raw')
export type ImageFormat = v.InferOutput<typeof ImageFormat>
export const Compression = v.picklist(['none', 'gzip', 'xz'], 'must be none, gzip or xz')
export type Compression = v.InferOutput<typeof Compression>
/** Bytes of the file as it is fetched. */
export const fileSize = v.pipe(v.number(), v.integer('must be a whole number of bytes'), v.minValue(1))

/** What a caller may say of an image's file. Without a `url` the node's image service knows it. */
export const imageSource = {
  url: v.optional(FetchUrl),
  ...digests,
  size: v.optional(fileSize),
  compression: v.optional(Compression),
  format: v.optional(ImageFormat),
}

/**
 * An image of a node's pool. `size` is what its disk holds, bytes; digests and `source` (its address without query and credentials) are of
 * the file it was fetched as, where Muster did.
 */
export const Image = v.looseObject({
  uuid: ImageName,
  name: ImageName,
  format: v.string(),
  size: v.number(),
  allocated_bytes: v.number(),
  path: v.optional(v.string()),
  /** Number of VMs whose disks stand on it. */
  used_by: v.number(),
  ...digests,
  source: v.optional(v.string()),
  created: v.optional(v.string()),
})
export type Image = v.InferOutput<typeof Image>
