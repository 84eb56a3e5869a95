/**
 * Many questions, few askings: what comes until the current turn of the event loop is over, or while an asking is under way, is asked together.
 * An answer counts only for who asked before it was asked for.
 */
export function rounds<Q, A>(ask: (questions: Q[]) => Promise<A>): (question: Q) => Promise<A> {
  let waiting: { question: Q; resolve: (answer: A) => void; reject: (error: unknown) => void }[] = []
  let underWay = false
  const send = async () => {
    while (waiting.length > 0) {
      const asked = waiting
      waiting = []
      try {
        const answer = await ask(asked.map(({ question }) => question))
        for (const { resolve } of asked) resolve(answer)
      } catch (error) {
        for (const { reject } of asked) reject(error)
      }
    }
    underWay = false
  }
  return question =>
    new Promise((resolve, reject) => {
      waiting.push({ question, resolve, reject })
      if (underWay) return
      underWay = true
      setImmediate(send)
    })
}
