import type { FleetDocument } from '../../../actors/allocation/document.ts'

export interface Options {
  servers?: number
  vms?: number
  requests?: number
  seed?: number
  profile?: 'realistic' | 'fuzz'
  tickets?: number
  minDisk?: boolean
}
export function generate(options?: Options): FleetDocument
