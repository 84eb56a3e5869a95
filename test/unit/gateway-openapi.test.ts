/** The OpenAPI document is derived from the table, committed, fresh, and complete. */
import { readFileSync } from 'node:fs'
import * as assert from 'uvu/assert'
import { packageVersion } from '../../gateway/config.ts'
import { openApi } from '../../gateway/openapi.ts'
import { routes } from '../../gateway/routes.ts'
import { changes, pathParams } from '../../gateway/row.ts'
import { fakeGateway } from '../fake-backend.ts'
import { preparedBackend, SAMPLES } from '../gateway-samples.ts'
import { suite } from '../suite.ts'

const test = suite('openapi.json')
const rows = routes(packageVersion())
// biome-ignore lint/suspicious/noExplicitAny: a JSON document
const document = JSON.parse(JSON.stringify(openApi(rows, packageVersion()))) as any

test('the committed file is fresh: npm run openapi writes it', () => {
  const committed = JSON.parse(readFileSync(new URL('../../openapi.json', import.meta.url), 'utf8'))
  assert.equal(committed, document)
})

test('GET /openapi.json serves the document of the running table', async () => {
  const { ask, rows } = fakeGateway(preparedBackend())
  const { body } = await ask('GET', '/openapi.json')
  assert.is(body.openapi, '3.1.0')
  const operations = Object.values(body.paths).flatMap(path => Object.keys(path as object))
  assert.is(operations.length, rows.length)
})

test('every row is in it once, with its path parameters, success and errors', () => {
  const ids: string[] = []
  for (const row of rows) {
    const operation = document.paths[row.path.replace(/:([a-z_]+)/g, '{$1}')][row.method.toLowerCase()]
    ids.push(operation.operationId)
    const inPath = operation.parameters.filter((parameter: { in: string }) => parameter.in === 'path')
    assert.equal(
      inPath.map(({ name }: { name: string }) => name),
      pathParams(row.path),
    )
    assert.ok(operation.responses[row.success.status], row.name)
    assert.ok(operation.responses['406'], row.name)
    const keyed = operation.parameters.some(({ name }: { name: string }) => name === 'Idempotency-Key')
    assert.is(keyed, changes(row), row.name)
  }
  assert.is(new Set(ids).size, rows.length)
})

test('parameters are described: required, types, bounds', () => {
  const host = document.paths['/host/{hostname}'].post.requestBody.content['application/json'].schema
  assert.equal(host.required, ['memory', 'disks', 'networks'])
  assert.is(host.properties.disks.items.minimum, 1)
  const limit = document.paths['/servers'].get.parameters.find(({ name }: { name: string }) => name === 'limit')
  assert.equal([limit.in, limit.required], ['query', false])
  assert.is(document.paths['/servers/{server_uuid}/sysinfo'].post.requestBody.required, true)
})

test('no schema was lost in conversion: parameters with rules have a type', () => {
  for (const row of rows) {
    for (const name of Object.keys(row.params)) {
      if (row.params[name].wrapped?.type === 'unknown') continue
      const operation = document.paths[row.path.replace(/:([a-z_]+)/g, '{$1}')][row.method.toLowerCase()]
      const parameter = operation.parameters.find((candidate: { name: string }) => candidate.name === name)
      const schema = parameter?.schema ?? operation.requestBody?.content['application/json'].schema.properties[name]
      assert.ok(schema && Object.keys(schema).length > 0, `${row.name} ${name}`)
    }
  }
})

test('samples of the tests touch every row of the document', () => {
  assert.is(Object.keys(SAMPLES).length, rows.length)
})

test.run()
