/** Hosts: a hostname of the compute agent's API and the compute node it is bound to. */
import * as v from 'valibot'

/** Context of a host's machine. `key`: its own id; `networks`: names asked for through this hostname. */
export const HostContext = v.object({
  key: v.string(),
  hostname: v.string(),
  server_uuid: v.nullable(v.string()),
  vm_uuid: v.nullable(v.string()),
  networks: v.array(v.string()),
})
export type HostContext = v.InferOutput<typeof HostContext>
