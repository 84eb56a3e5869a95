/** XML by tagged template: whatever is put in becomes text of an attribute or element, never markup, unless it is Xml itself. */

/** Markup that was made by `xml`. */
export class Xml {
  readonly text: string
  constructor(text: string) {
    this.text = text
  }
}

type Part = Xml | readonly Xml[] | string | number | undefined

/** xml`<name>${anything}</name>`; arrays of Xml are joined, undefined is nothing. */
export function xml(strings: TemplateStringsArray, ...parts: Part[]): Xml {
  return new Xml(strings.map((text, n) => text + render(parts[n])).join(''))
}

function render(part: Part): string {
  if (part === undefined) return ''
  if (part instanceof Xml) return part.text
  if (typeof part === 'object') return part.map(one => one.text).join('\n')
  return escapeXml(String(part))
}

const entities: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&apos;' }

/** Characters that XML 1.0 cannot hold at all become U+FFFD. */
export function escapeXml(text: string): string {
  return text.replace(unfit, '\ufffd').replace(/[&<>"']/g, character => entities[character] as string)
}

// Everything but tab, newline, carriage return and the ranges of XML's Char; lone surrogates are outside of them.
const unfit = /[^\t\n\r\u{20}-\u{d7ff}\u{e000}-\u{fffd}\u{10000}-\u{10ffff}]/gu

/** The text that `escapeXml`, or libvirt, wrote: the five named entities and the numbered ones. */
export function unescapeXml(text: string): string {
  return text.replace(/&(?:#x([0-9a-f]+)|#([0-9]+)|(amp|lt|gt|quot|apos));/gi, (_, hex, decimal, name) => {
    if (name) return characters[String(name).toLowerCase()] as string
    return String.fromCodePoint(hex ? Number.parseInt(hex, 16) : Number(decimal))
  })
}

const characters: Record<string, string> = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'" }
