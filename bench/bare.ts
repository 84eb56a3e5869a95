/** The least that an HTTP answer costs here: Hono on Node, one path, a JSON body of a given size. Arguments: port, bytes. */
import { serve } from '@hono/node-server'
import { Hono } from 'hono'

const [port = 0, bytes = 0] = process.argv.slice(2).map(Number)
const body = { filler: 'x'.repeat(Math.max(0, bytes - 13)) }
const app = new Hono()
app.get('/servers', c => c.json(body))
app.get('/servers/:server_uuid', c => c.json(body))
// As much as any handler has to: the body is read and parsed.
app.post('/servers/:server_uuid/*', async c => {
  await c.req.json()
  return c.body(null, 204)
})
app.get('/ping', c => c.json({}))
serve({ fetch: app.fetch, port, hostname: '127.0.0.1' })
