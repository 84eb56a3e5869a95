/** Chooses the media type of an answer from the Accept header (RFC 9110 §12.5.1): exact, then type/*, then *\/*, by weight. */

export const JSON_TYPE = 'application/json'
export const TEXT_TYPE = 'text/plain'

/** What every route offers, best first. */
const common = [JSON_TYPE, TEXT_TYPE]

/** The offered type that the header likes best; undefined when it likes none. `more`: types of this route beside the common ones. */
export function negotiate(header: string | undefined, more: readonly string[] = []): string | undefined {
  if (header === undefined || header === '' || header === '*/*' || header === JSON_TYPE) return JSON_TYPE
  const ranges = header.split(',', 32).map(parseRange)
  let best: string | undefined
  let bestWeight = 0
  for (const offer of [...common, ...more]) {
    const weight = weightOf(offer, ranges)
    if (weight > bestWeight) {
      best = offer
      bestWeight = weight
    }
  }
  return best
}

interface Range {
  type: string
  weight: number
}

function parseRange(text: string): Range {
  const [type = '', ...parameters] = text.split(';').map(part => part.trim().toLowerCase())
  const q = parameters.find(parameter => parameter.startsWith('q='))
  const weight = q === undefined ? 1 : Number(q.slice(2))
  return { type, weight: Number.isFinite(weight) ? weight : 0 }
}

/** The most specific range that covers the type decides. */
function weightOf(type: string, ranges: Range[]): number {
  const group = `${type.slice(0, type.indexOf('/'))}/*`
  for (const form of [type, group, '*/*']) {
    const range = ranges.find(candidate => candidate.type === form)
    if (range) return range.weight
  }
  return 0
}
