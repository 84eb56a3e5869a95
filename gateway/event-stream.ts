/**
 * Server-sent events: a stream that ends when its reader leaves, beats so that a dead connection is noticed, and is cut when its
 * reader is too slow to take what happens; such a reader comes back with its Last-Event-ID.
 */

export const EVENT_STREAM_TYPE = 'text/event-stream'

/** Time between comments, and most bytes that wait for a slow reader. */
export const BEAT_MS = 15_000
export const BACKLOG_MAX_BYTES = 1024 * 1024

export interface StreamEvent {
  id: string
  event: string
  data: unknown
}

export interface StreamOptions {
  /** Where the reader stands although nothing was told: goes out with each beat, so that it comes back there. */
  place?: () => string
}

/** `open` starts telling and returns how to stop; `close` ends the stream. A reader that is cut hears `slow` last. */
export function eventStream(
  open: (tell: (event: StreamEvent) => void, close: () => void) => () => void,
  { place }: StreamOptions = {},
): ReadableStream<Uint8Array> {
  const encoder = new TextEncoder()
  let stop = () => {}
  return new ReadableStream<Uint8Array>(
    {
      start: controller => {
        let over = false
        const put = (text: string) => {
          if (over) return
          if ((controller.desiredSize ?? 0) <= 0) {
            stop()
            controller.enqueue(encoder.encode(`event: slow\ndata: ${JSON.stringify(slow)}\n\n`))
            controller.close()
          } else controller.enqueue(encoder.encode(text))
        }
        const beat = setInterval(() => put(place ? `:\nid: ${place()}\n\n` : ':\n\n'), BEAT_MS)
        let close = () => {}
        stop = () => {
          over = true
          clearInterval(beat)
          close()
        }
        const end = () => {
          if (over) return
          stop()
          controller.close()
        }
        // Something to read at once: a caller sees that it is connected.
        put(`retry: ${retryMs}\n\n`)
        close = open(({ id, event, data }) => put(`id: ${id}\nevent: ${event}\ndata: ${JSON.stringify(data)}\n\n`), end)
        if (over) close()
      },
      cancel: () => stop(),
    },
    new ByteLengthQueuingStrategy({ highWaterMark: BACKLOG_MAX_BYTES }),
  )
}

const retryMs = 1_000
const slow = { reason: 'The reader is too slow: come back with Last-Event-ID to hear what was missed' }
