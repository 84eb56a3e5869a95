/** The one table that a run prints: a line per figure, beside the limit of the same run and the aim it is held to. */

export interface Row {
  /** What was measured. */
  what: string
  /** The figure with its unit. */
  figure: string
  /** Circumstances in a few words: latencies, shares, sizes. */
  detail?: string
  /** Figure against the limit or bound of this run, in words, and whether the aim is met, if there is one. */
  aim?: { text: string; met?: boolean }
}

export interface Section {
  name: string
  /** Circumstances of all rows. */
  note?: string
  rows: Row[]
}

/** Lines of the table, columns aligned. */
export function table(sections: Section[]): string[] {
  const header = ['measure', 'figure', 'against its aim', '', 'detail']
  const body = sections.flatMap(({ name, note = '', rows }) => [[name, '', '', '', note], ...rows.map(cells)])
  const widths = header.map((_, at) => Math.max(...[header, ...body].map(line => line[at]?.length ?? 0)))
  const line = (of: string[]) =>
    of
      .map((text, at) => text.padEnd(widths[at] ?? 0))
      .join('  ')
      .trimEnd()
  const rule = '-'.repeat(line(header).length)
  return [line(header), rule, ...body.map(line), rule]
}

function cells({ what, figure, detail = '', aim }: Row): string[] {
  return [`  ${what}`, figure, aim?.text ?? '', mark(aim?.met), detail]
}

const mark = (met: boolean | undefined) => (met === undefined ? '' : met ? 'PASS' : 'MISS')

/** 12,345 */
export const whole = (n: number): string => Math.round(n).toLocaleString('en-US')
/** 12,345/s */
export const perSecond = (n: number): string => `${whole(n)}/s`
/** MiB of a number of bytes. */
export const mib = (bytes: number): string => `${whole(bytes / 1024 / 1024)} MiB`
/** 12.3 s */
export const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`
/** Share of one core. */
export const share = (cores: number): string => `${(cores * 100).toFixed(1)} %`
/** Shares by name: "host 12.3 %, nats 45.6 %". */
export const shares = (cores: Record<string, number>): string =>
  Object.entries(cores)
    .map(([name, used]) => `${name} ${share(used)}`)
    .join(', ')
