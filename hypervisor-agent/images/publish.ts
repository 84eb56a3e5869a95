/**
 * Gives an image to an image service, in the three steps of IMGAPI: the manifest, the file with its checksum, then what makes it usable. Each
 * may be repeated: what is there already is success.
 */
import { createReadStream } from 'node:fs'
import * as v from 'valibot'
import { HypervisorError } from '../hypervisor.ts'
import type { Packed } from './pack.ts'

export interface Publication {
  /** The service, as the caller gave it. */
  service: string
  manifest: { uuid: string } & Record<string, unknown>
  /** The packed file. */
  path: string
  file: Packed
}

/** Steps that only say something, ms. */
const wordLimitMs = 30_000
/** Most of a refusal that is told, characters. */
const saidMax = 500

/** ImageServiceFailed, with what the service said. */
export async function publish({ service, manifest, path, file }: Publication, signal: AbortSignal): Promise<void> {
  const image = `${service.replace(/\/+$/, '')}/images/${encodeURIComponent(manifest.uuid)}`
  const say = (action: string, body?: object) =>
    ask(`${image}?action=${action}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body ?? {}),
      signal: AbortSignal.any([signal, AbortSignal.timeout(wordLimitMs)]),
    })
  await say('import', manifest)
  const query = new URLSearchParams({ compression: file.compression, sha1: file.sha1, sha256: file.sha256 })
  const taken = await ask(`${image}/file?${query}`, {
    method: 'PUT',
    headers: { 'content-type': 'application/octet-stream', 'content-length': String(file.size) },
    body: createReadStream(path),
    duplex: 'half',
    signal,
  })
  // It has a file for good: ours from a try before this one, or somebody else's image of the same uuid.
  const isThere = v.is(There, taken)
  const sha1 = sha1In(isThere ? await ask(image, { signal }) : taken)
  if ((isThere || sha1 !== undefined) && sha1 !== file.sha1) {
    const verb = isThere ? 'has' : 'has taken'
    throw failed(image, `it ${verb} a file with SHA-1 ${sha1 ?? 'that it does not tell'}, not ${file.sha1}`)
  }
  await say('activate')
}

/** What a service may answer: the manifest as it has it now. */
const Taken = v.looseObject({ files: v.array(v.looseObject({ sha1: v.optional(v.string()) })) })
/** Or that it has what it is given already. */
const There = v.looseObject({ code: v.picklist(['ImageUuidAlreadyExists', 'ImageAlreadyActivated']) })

function sha1In(answer: unknown): string | undefined {
  const taken = v.safeParse(Taken, answer)
  return taken.success ? taken.output.files[0]?.sha1 : undefined
}

/** The answer's JSON, or undefined. An address that leads elsewhere is not followed. */
async function ask(url: string, request: RequestInit & { duplex?: 'half' }): Promise<unknown> {
  let response: Response
  let text: string
  try {
    response = await fetch(url, { ...request, redirect: 'error' } as RequestInit)
    text = await response.text()
  } catch (error) {
    const { message, cause } = error as Error
    throw failed(url, cause instanceof Error ? cause.message : message, error)
  }
  const body = parsed(text)
  if (response.ok || v.is(There, body)) return body
  throw failed(url, `it answers ${response.status}: ${text.slice(0, saidMax)}`)
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

function failed(url: string, why: string, cause?: unknown): HypervisorError {
  return new HypervisorError('ImageServiceFailed', `the image service does not take the image: ${url}: ${why}`, {
    cause,
  })
}
