/** Cases of the ZFS tasks, for agent-tasks.test.ts. */
import * as assert from 'uvu/assert'
import type { Case, Scene } from './task-suite.ts'

/** A dataset with one snapshot and one property. */
const prepare = async ({ node: { tools } }: Scene) => {
  await tools.zfs.create('zones/b')
  await tools.zfs.snapshot('zones/b@first')
  await tools.zfs.set('zones/b', { 'a:a': 'old' })
}
const names = async ({ node: { tools } }: Scene) =>
  [...(await tools.zfs.datasets()), ...(await tools.zfs.snapshots('zones/b').catch(() => []))].map(({ name }) => name)
const property = async ({ node: { tools } }: Scene, name: string) =>
  (await tools.zfs.properties('zones/b', [name]))['zones/b']?.[name]

const is = (wanted: string[]) => async (scene: Scene) => assert.equal(await names(scene), wanted)
const untouched = is(['zones', 'zones/b', 'zones/b@first'])

export const ZFS_CASES: Case[] = [
  {
    task: 'zfs_create_dataset',
    name: 'makes a dataset',
    prepare,
    params: () => ({ dataset: 'zones/a' }),
    check: is(['zones', 'zones/b', 'zones/a', 'zones/b@first']),
  },
  {
    task: 'zfs_create_dataset',
    name: 'refuses one that is there',
    prepare,
    params: () => ({ dataset: 'zones/b' }),
    failure: 'DatasetExists',
    check: untouched,
  },
  {
    task: 'zfs_snapshot_dataset',
    name: 'takes a snapshot',
    prepare,
    params: () => ({ dataset: 'zones/b@second' }),
    check: is(['zones', 'zones/b', 'zones/b@first', 'zones/b@second']),
  },
  {
    task: 'zfs_snapshot_dataset',
    name: 'refuses a name that is taken',
    prepare,
    params: () => ({ dataset: 'zones/b@first' }),
    failure: 'DatasetExists',
    check: untouched,
  },
  {
    task: 'zfs_rollback_dataset',
    name: 'goes back to a snapshot',
    prepare: async scene => {
      await prepare(scene)
      await scene.node.tools.zfs.set('zones/b', { 'b:b': 'late' })
    },
    params: () => ({ dataset: 'zones/b@first' }),
    check: untouched,
  },
  {
    task: 'zfs_rollback_dataset',
    name: 'refuses a snapshot that there is not',
    prepare,
    params: () => ({ dataset: 'zones/b@none' }),
    failure: 'DatasetNotFound',
    check: untouched,
  },
  {
    task: 'zfs_set_properties',
    name: 'sets them all',
    prepare,
    params: () => ({ dataset: 'zones/b', properties: { 'a:a': 'new', 'c:c': 'x' } }),
    check: async scene => assert.equal([await property(scene, 'a:a'), await property(scene, 'c:c')], ['new', 'x']),
  },
  {
    task: 'zfs_set_properties',
    name: 'sets none where one cannot be set',
    prepare,
    params: () => ({ dataset: 'zones/b', properties: { 'a:a': 'new', 'c:c': 'x', used: '1', 'd:d': 'x' } }),
    failure: 'ZfsFailed',
    check: async scene => {
      const now = await Promise.all(['a:a', 'c:c', 'd:d'].map(name => property(scene, name)))
      assert.equal(now, ['old', '-', '-'])
    },
  },
  {
    task: 'zfs_destroy_dataset',
    name: 'destroys a snapshot',
    prepare,
    params: () => ({ dataset: 'zones/b@first' }),
    check: is(['zones', 'zones/b']),
  },
  {
    task: 'zfs_destroy_dataset',
    name: 'leaves what has children',
    prepare,
    params: () => ({ dataset: 'zones/b' }),
    failure: 'ZfsFailed',
    check: untouched,
  },
  {
    task: 'zfs_destroy_dataset',
    name: 'says that there is no such dataset',
    prepare,
    params: () => ({ dataset: 'zones/none' }),
    failure: 'DatasetNotFound',
    check: untouched,
  },
]
