/** All images of the node's pool. */
import type { ReadHandlers } from './read.ts'

export const image_list: ReadHandlers['image_list'] = ({ hypervisor, images }) => images.list(hypervisor)
