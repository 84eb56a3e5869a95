/** Identifiers and names that callers give: the only place that says what is well-formed. */
import * as v from 'valibot'

/** 8-4-4-4-12 hexadecimal digits, any case; the gateway lower-cases it before use. */
export const Uuid = v.pipe(
  v.string(),
  v.regex(/^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i, 'must be a UUID'),
)

/** RFC 1123 host name, at most 200 characters: it becomes a libvirt domain name and part of file names. */
export const Hostname = v.pipe(
  v.string(),
  v.maxLength(200, 'must have at most 200 characters'),
  v.regex(
    /^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*$/,
    'must be a host name (letters, digits, inner hyphens, dots)',
  ),
)

/** Name of a libvirt network. */
export const NetworkName = v.pipe(
  v.string(),
  v.regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/, 'must be letters, digits, dots, underscores, hyphens; at most 128'),
)

/** Name of an Open vSwitch bridge: a Linux interface name. */
export const BridgeName = v.pipe(
  v.string(),
  v.regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,14}$/, 'must be an interface name of at most 15 characters'),
)

/** IEEE 802.1Q VLAN id; 0 and 4095 are reserved although libvirt accepts them. */
export const VlanId = v.pipe(v.number(), v.integer('must be a whole number'), v.minValue(1), v.maxValue(4094))

/** Name of an image volume in a node's storage pool. */
export const ImageName = v.pipe(
  v.string(),
  v.regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/, 'must be letters, digits, dots, underscores, hyphens; at most 128'),
)

/** Name of a VM's snapshot: it becomes part of file names on the node. */
export const SnapshotName = v.pipe(
  v.string(),
  v.regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/, 'must be letters, digits, dots, underscores, hyphens; at most 64'),
)

/** EUI-48 address of a unicast NIC. */
export const Mac = v.pipe(
  v.string(),
  v.regex(/^[0-9a-f][02468ace](:[0-9a-f]{2}){5}$/i, 'must be a unicast MAC address such as 52:54:00:12:34:56'),
)

/** A nic tag: the name for a network that many nodes reach through a bridge of their own. */
export const NicTag = v.pipe(
  v.string(),
  v.regex(/^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$/, 'must be letters, digits, dots, underscores, hyphens; at most 64'),
)
