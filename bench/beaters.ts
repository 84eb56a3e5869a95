/**
 * A process that is many agents at once, each with a TCP connection of its own as real agents have: it subscribes to what its agent
 * is told, answers the server's pings and beats. Speaks the NATS protocol by hand, since a client library each would measure itself.
 * Arguments: port, number of nodes. Prints `ready` when all beat; ends with exit code 1 when a connection is lost.
 */
import { connect, type Socket } from 'node:net'
import { HEARTBEAT_MS } from '../actors/contract/server.ts'
import { pattern, subject } from '../services/nats/subjects.ts'
import { serverUuid } from './seed.ts'

const [port = 0, count = 0] = process.argv.slice(2).map(Number)
const connectAtOnce = 200
const sliceMs = 50

const sockets: Socket[] = []
for (let n = 0; n < count; n += connectAtOnce) {
  const more = Array.from({ length: Math.min(connectAtOnce, count - n) }, (_, at) => open(n + at))
  sockets.push(...(await Promise.all(more)))
}

// Each node beats in its own slice of the period, so that the load is even; a process that was held up catches up.
const slices = HEARTBEAT_MS / sliceMs
const began = performance.now()
let done = 0
setInterval(() => {
  const due = Math.floor((performance.now() - began) / sliceMs)
  const beat = JSON.stringify({ at: Date.now() })
  for (; done < due; done++) {
    for (let n = done % slices; n < count; n += slices) {
      sockets[n]?.write(`PUB ${subject.heartbeat(serverUuid(n))} ${beat.length}\r\n${beat}\r\n`)
    }
  }
}, sliceMs)
console.log('ready')

/** Resolves when the server has taken the subscription. */
function open(n: number): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1')
    const options = JSON.stringify({ verbose: false, pedantic: false, lang: 'bench', version: '1', protocol: 1 })
    socket.setNoDelay(true)
    socket.write(`CONNECT ${options}\r\nSUB ${pattern.agent(serverUuid(n))} 1\r\nPING\r\n`)
    socket.on('data', chunk => {
      const text = chunk.toString('latin1')
      if (text.includes('PONG\r\n')) resolve(socket)
      if (text.includes('PING\r\n')) socket.write('PONG\r\n')
      if (text.includes('-ERR')) lost(new Error(text.trim()))
    })
    const lost = (error: Error) => {
      reject(error)
      console.error(`connection ${n} was lost: ${error.message}`)
      process.exit(1)
    }
    socket.on('error', lost)
    socket.on('close', () => lost(new Error('closed by the server')))
  })
}
