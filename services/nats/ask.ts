/**
 * One message, one answer: what commits and commands are made of, thousands a second. The client library's own request makes a race
 * of promises and an Error with its stack for each, also where all goes well; that cost an actor host a tenth of its time.
 */
import { createInbox, type Msg, type MsgHdrs } from 'nats'
import { inboxPrefixOf, type NatsConnection } from './connect.ts'

/** Nobody listens to the subject. */
export class NoRespondersError extends Error {
  override name = 'NoRespondersError'
}

/** No answer in time. */
export class NoAnswerError extends Error {
  override name = 'NoAnswerError'
}

export interface AskOptions {
  timeoutMs: number
  headers?: MsgHdrs
}

/** Publishes and resolves with the first answer. Rejects with NoRespondersError, NoAnswerError, or why it could not be published. */
export function ask(nc: NatsConnection, subject: string, bytes: Uint8Array, options: AskOptions): Promise<Msg> {
  return new Promise((resolve, reject) => {
    const answers = answersOf(nc)
    const token = answers.nextToken()
    const timer = setTimeout(() => {
      answers.waiting.delete(token)
      reject(new NoAnswerError(`no answer within ${options.timeoutMs} ms`))
    }, options.timeoutMs)
    answers.waiting.set(token, { resolve, reject, timer })
    try {
      const reply = `${answers.inbox}.${token}`
      nc.publish(subject, bytes, options.headers ? { reply, headers: options.headers } : { reply })
    } catch (error) {
      answers.waiting.delete(token)
      clearTimeout(timer)
      reject(error)
    }
  })
}

interface Answers {
  inbox: string
  waiting: Map<string, { resolve: (message: Msg) => void; reject: (error: Error) => void; timer: NodeJS.Timeout }>
  nextToken(): string
}

const connections = new WeakMap<NatsConnection, Answers>()

/** One subscription a connection for all answers. */
function answersOf(nc: NatsConnection): Answers {
  const there = connections.get(nc)
  if (there) return there
  let asked = 0
  const inbox = createInbox(inboxPrefixOf(nc))
  const answers: Answers = { inbox, waiting: new Map(), nextToken: () => (++asked).toString(36) }
  connections.set(nc, answers)
  nc.closed().then(
    () => {
      for (const [token, { reject, timer }] of answers.waiting) {
        answers.waiting.delete(token)
        clearTimeout(timer)
        reject(new NoAnswerError('the connection is closed'))
      }
    },
    () => {},
  )
  nc.subscribe(`${inbox}.*`, {
    callback: (error, message) => {
      if (error) return
      const token = message.subject.slice(inbox.length + 1)
      const asker = answers.waiting.get(token)
      if (!asker) return
      answers.waiting.delete(token)
      clearTimeout(asker.timer)
      if (message.data.length === 0 && message.headers?.code === 503) {
        // JetStream answers so too while a stream has no leader.
        asker.reject(new NoRespondersError('nobody answers (no JetStream, or no leader yet)'))
      } else asker.resolve(message)
    },
  })
  return answers
}
