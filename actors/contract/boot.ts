/** Boot parameters: what a boot server is told of a server, and how callers change it (cnapi-behaviour §6). */
import * as v from 'valibot'

/** Id of the record that holds the boot parameters of servers to come. It is no server. */
export const DEFAULTS_ID = 'default'

/** Most characters that arguments, flags and modules of one server may have together, as JSON: its record stays small. */
export const BOOT_MAX_LENGTH = 128 * 1024

const values = v.record(v.string(), v.unknown())

/** A file handed to the kernel at boot: `content` in base64. */
export const BootModule = v.object({ path: v.string(), type: v.string(), content: v.string() })
export type BootModule = v.InferOutput<typeof BootModule>

/** The fields of a server's record that it is booted with; '' where nothing is chosen. New servers take those of `default`. */
export const BootFields = v.object({
  boot_platform: v.string(),
  boot_params: values,
  kernel_flags: values,
  default_console: v.string(),
  serial: v.string(),
})
export type BootFields = v.InferOutput<typeof BootFields>

/** A change of them, with the names that callers use. In a merge, a null among arguments or flags removes that one. */
export const BootChange = v.object({
  platform: v.optional(v.string()),
  kernel_args: v.optional(values),
  kernel_flags: v.optional(values),
  boot_modules: v.optional(v.array(BootModule)),
  default_console: v.optional(v.string()),
  serial: v.optional(v.string()),
})
export type BootChange = v.InferOutput<typeof BootChange>
