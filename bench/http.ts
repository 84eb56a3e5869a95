/** An HTTP client that keeps its connections, as the clients of a control plane do. */
import { Agent, request } from 'node:http'
import type { Scope } from './scope.ts'

export interface Answer {
  status: number
  text: string
}

export interface HttpClient {
  /** Throws unless the answer is a 2xx. */
  get(path: string): Promise<Answer>
  post(path: string, body?: unknown): Promise<Answer>
}

/** A client of one server; its connections end with the scope. */
export function httpClient(scope: Scope, url: string, connections: number): HttpClient {
  const agent = new Agent({ keepAlive: true, maxSockets: connections })
  scope.defer(() => agent.destroy())
  const ask = (method: string, path: string, body?: unknown) =>
    new Promise<Answer>((resolve, reject) => {
      const bytes = body === undefined ? undefined : Buffer.from(JSON.stringify(body))
      const headers = bytes ? { 'content-type': 'application/json', 'content-length': bytes.length } : {}
      const outgoing = request(url + path, { method, agent, headers }, incoming => {
        let text = ''
        incoming.setEncoding('utf8')
        incoming.on('data', chunk => {
          text += chunk
        })
        incoming.on('end', () => {
          const status = incoming.statusCode ?? 0
          if (status >= 200 && status < 300) resolve({ status, text })
          else reject(new Error(`${method} ${path} answered ${status}: ${text.slice(0, 300)}`))
        })
        incoming.on('error', reject)
      })
      outgoing.on('error', reject)
      outgoing.end(bytes)
    })
  return { get: path => ask('GET', path), post: (path, body) => ask('POST', path, body) }
}
