/** A server of which nothing is known yet: what every record begins with, `default` too (cnapi-behaviour §2.2). */
import type { ServerContext } from './server.ts'

export function newServer(uuid: string): ServerContext {
  return {
    uuid,
    hostname: uuid,
    datacenter: '',
    created: new Date(0).toISOString(),
    last_boot: null,
    boot_platform: '',
    boot_params: {},
    kernel_flags: {},
    current_platform: null,
    comments: '',
    default_console: 'serial',
    serial: 'ttyb',
    headnode: false,
    rack_identifier: '',
    ram: 0,
    reservation_ratio: 0.15,
    reserved: false,
    reservoir: false,
    setup: false,
    system_type: null,
    traits: {},
    agents: [],
    open: {},
  }
}
