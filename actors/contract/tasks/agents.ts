/** Tasks that install and remove agents: software of the node beside its guests, Muster's own agent included. */
import * as v from 'valibot'
import { ImageName } from '../ids.ts'
import { digests, FetchUrl, fileSize } from '../image.ts'
import { Sysinfo } from '../server.ts'
import { hour, type TaskKind } from './kind.ts'

/** Name of an agent: of a Debian package, or of the folder a tarball is unpacked into. */
export const AgentName = v.pipe(
  v.string(),
  v.regex(/^[a-z0-9][a-z0-9+.-]{1,63}$/, 'must be the name of a package: lower case letters, digits, +, - and dots'),
)

/** What is told of an agent that is to be installed. Without a `url` the image service knows `image_uuid`. */
export const agentSource = {
  image_uuid: v.optional(ImageName),
  package_name: v.optional(AgentName),
  /** Name of the file, where the address does not tell whether it is a package or a tarball; it is looked at in any case. */
  package_file: v.optional(v.pipe(v.string(), v.maxLength(255))),
  url: v.optional(FetchUrl),
  ...digests,
  size: v.optional(fileSize),
}

const withSysinfo = v.object({ sysinfo: Sysinfo })

export const AGENT_TASKS = {
  agent_install: { params: v.object(agentSource), result: withSysinfo, limitMs: hour, serial: 'node' },
  /** Agents that are not there are removed already. */
  agents_uninstall: {
    params: v.object({ agents: v.pipe(v.array(AgentName), v.maxLength(64)) }),
    result: withSysinfo,
    limitMs: hour,
    serial: 'node',
  },
} as const satisfies Record<string, TaskKind>
