/** Platforms: what the nodes can boot, and so what may be chosen as `boot_platform`. */
import * as v from 'valibot'
import { latestOf, platformsOf } from '../platforms.ts'
import { type AnyRow, row } from '../row.ts'
import { booleanWord } from '../rules.ts'

const entry = v.object({ latest: v.optional(v.literal(true)), os: v.optional(v.picklist(['smartos', 'linux'])) })

export const platformRows: AnyRow[] = [
  row({
    method: 'GET',
    path: '/platforms',
    name: 'PlatformList',
    summary:
      'By name, what nodes have reported to be able to boot: installed kernels, or the image they run. `latest` marks the newest; with `os=true`, the newest of each operating system.',
    gate: 'G0',
    strict: true,
    params: { os: v.optional(booleanWord) },
    success: { status: 200, description: 'Platforms by name', body: v.record(v.string(), entry) },
    errors: ['InvalidArgument'],
    handle: async ({ params }, backend) => {
      const known = await platformsOf(backend)
      const latest = params.os
        ? ['smartos', 'linux', undefined].map(os =>
            latestOf([...known.values()].filter(platform => platform.os === os).map(({ name }) => name)),
          )
        : [latestOf(known.keys())]
      const shown = [...known.values()].map(({ name, os }) => [
        name,
        { ...(latest.includes(name) ? { latest: true } : {}), ...(params.os && os ? { os } : {}) },
      ])
      return { status: 200, body: Object.fromEntries(shown) }
    },
  }),
]
