/**
 * Passes connections on: between a port of the loopback (a number) and a socket in a folder (a path), so that two network namespaces reach
 * each other without an address in common. Run as a program it takes its links as JSON, says `relaying` and goes on until it is stopped.
 */
import { once } from 'node:events'
import { createConnection, createServer, type Server, type Socket } from 'node:net'
import { fileURLToPath } from 'node:url'

type Place = number | string
export interface Link {
  listen: Place
  connect: Place
}

/** Resolves when all listen; the answer ends it, connections included. */
export async function relay(links: Link[]): Promise<() => void> {
  const sockets = new Set<Socket>()
  const servers: Server[] = []
  for (const { listen, connect } of links) {
    const server = createServer({ allowHalfOpen: true }, here => {
      const there = createConnection({ ...addressOf(connect), allowHalfOpen: true })
      for (const socket of [here, there]) {
        sockets.add(socket)
        socket.on('error', () => {})
        socket.once('close', () => {
          sockets.delete(socket)
          here.destroy()
          there.destroy()
        })
      }
      here.pipe(there).pipe(here)
    })
    server.listen(addressOf(listen))
    await once(server, 'listening')
    servers.push(server)
  }
  return () => {
    for (const server of servers) server.close()
    for (const socket of sockets) socket.destroy()
  }
}

const addressOf = (place: Place) => (typeof place === 'number' ? { host: '127.0.0.1', port: place } : { path: place })

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await relay(JSON.parse(process.argv[2] ?? '[]'))
  console.log('relaying')
}
