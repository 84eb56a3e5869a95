/** The ZFS API over REST, from the gateway to a node's datasets: the same stories on a simulated ZFS and on a real one. */
import { randomUUID } from 'node:crypto'
import * as assert from 'uvu/assert'
import type { GatewayProcess } from '../muster-fixture.ts'
import type { Suite } from '../suite.ts'

export interface ZfsPlace {
  gateway: GatewayProcess
  server: string
  /** A pool that these tests have for themselves. */
  pool: string
}

export function zfsStories(test: Suite, place: () => ZfsPlace): void {
  const ask = (method: string, path: string, body?: object) =>
    place().gateway.ask(method, `/servers/${place().server}${path}`, body ? { body } : {})
  const of = (dataset: string) => `/datasets/${encodeURIComponent(dataset)}`
  const fresh = async () => {
    const dataset = `${place().pool}/t${randomUUID().slice(0, 8)}`
    const made = await ask('POST', '/datasets', { dataset })
    assert.is(made.status, 204, JSON.stringify(made.body))
    return dataset
  }
  const refused = async (method: string, path: string, body: object | undefined, status: number, code: string) => {
    const answer = await ask(method, path, body)
    assert.equal([answer.status, answer.body.code], [status, code], answer.body.message)
    return answer.body
  }

  test('pools and datasets are listed with their sizes as text', async () => {
    const dataset = await fresh()
    const pools = (await ask('GET', '/zpools')).body
    const mine = pools.find((row: { name: string }) => row.name === place().pool)
    assert.is(mine.health, 'ONLINE')
    assert.equal(Object.keys(mine).sort(), ['allocated', 'cap', 'free', 'health', 'name', 'size'])
    const row = (await ask('GET', '/datasets')).body.find((row: { name: string }) => row.name === dataset)
    assert.equal(Object.keys(row).sort(), ['avail', 'mountpoint', 'name', 'refer', 'type', 'used'])
    assert.is(row.type, 'filesystem')
    assert.match(row.avail, /^\d+$/)
  })

  test('a dataset is made once, and needs its parent', async () => {
    const dataset = await fresh()
    await refused('POST', '/datasets', { dataset }, 409, 'DatasetExists')
    const orphan = await refused('POST', '/datasets', { dataset: `${place().pool}/none/child` }, 404, 'DatasetNotFound')
    assert.match(orphan.message, 'parent does not exist')
  })

  test('snapshots are taken, listed, rolled back to and destroyed', async () => {
    const dataset = await fresh()
    assert.is((await ask('POST', `${of(dataset)}/snapshot`, { name: 'one' })).status, 204)
    await refused('POST', `${of(dataset)}/snapshot`, { name: 'one' }, 409, 'DatasetExists')
    const names = async () =>
      (await ask('GET', `${of(dataset)}/snapshots`)).body.map(({ name, type }: Record<string, string>) => [name, type])
    assert.equal(await names(), [[`${dataset}@one`, 'snapshot']])
    const child = `${dataset}/child`
    assert.is((await ask('POST', '/datasets', { dataset: child })).status, 204)
    assert.is((await ask('POST', `${of(child)}/snapshot`, { name: 'two' })).status, 204)
    assert.equal((await names()).sort(), [
      [`${child}@two`, 'snapshot'],
      [`${dataset}@one`, 'snapshot'],
    ])
    for (const below of [`${child}@two`, child]) assert.is((await ask('DELETE', of(below))).status, 204)
    assert.is((await ask('POST', `${of(dataset)}/rollback`, { name: 'one' })).status, 204)
    await refused('POST', `${of(dataset)}/rollback`, { name: 'two' }, 404, 'DatasetNotFound')
    const inTheWay = await ask('DELETE', of(dataset))
    assert.is(inTheWay.status, 500)
    assert.match(inTheWay.body.message, 'children')
    assert.is((await ask('DELETE', of(`${dataset}@one`))).status, 204)
    assert.equal(await names(), [])
    const gone = await ask('DELETE', of(dataset))
    assert.is(gone.status, 204, JSON.stringify(gone.body))
    await refused('DELETE', of(dataset), undefined, 404, 'DatasetNotFound')
    await refused('GET', `${of(dataset)}/snapshots`, undefined, 404, 'DatasetNotFound')
  })

  test('properties are read by name or all of them, and set', async () => {
    const dataset = await fresh()
    const properties = { 'muster:note': 'two words; $(echo three)', 'muster:other': 'x' }
    assert.is((await ask('POST', `${of(dataset)}/properties`, { properties })).status, 204)
    const some = (await ask('GET', `${of(dataset)}/properties?prop1=muster:note&prop2=type`)).body
    assert.equal(some, { [dataset]: { 'muster:note': properties['muster:note'], type: 'filesystem' } })
    const every = (await ask('GET', `${of(dataset)}/properties`)).body[dataset]
    assert.is(every['muster:other'], 'x')
    assert.ok(Object.keys(every).length > 3)
    const all = (await ask('GET', '/dataset-properties?prop=type')).body
    assert.equal(all[dataset], { type: 'filesystem' })
    assert.equal(all[place().pool], { type: 'filesystem' })
  })

  test('names that are no names never reach a command', async () => {
    for (const dataset of ['-r', '../x', 'a b', '', 'pool//x', 'pool/$(reboot)', 'pool@x', 'x'.repeat(300)])
      await refused('POST', '/datasets', { dataset }, 400, 'InvalidParameters')
    const dataset = await fresh()
    for (const name of ['-r', 'a@b', '', 'a/b'])
      await refused('POST', `${of(dataset)}/snapshot`, { name }, 400, 'InvalidParameters')
    for (const properties of [{}, { '-x': 'a' }, { quota: 5 }, { 'a:b': 'line\nbreak' }, 'quota=5'])
      await refused('POST', `${of(dataset)}/properties`, { properties }, 400, 'InvalidParameters')
    await refused('GET', '/dataset-properties?prop1=-o', undefined, 400, 'InvalidParameters')
  })
}
