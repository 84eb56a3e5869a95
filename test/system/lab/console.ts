/** The serial console of one running guest: reads the file libvirt logs it to, and types lines into its pty. */
import { constants, openSync, writeSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { ReadStream } from 'node:tty'
import { eventually } from '../../eventually.ts'

export class GuestConsole {
  readonly #logFile: string
  readonly #liveXml: () => Promise<string>
  #typing: { fd: number; close: () => void } | undefined

  constructor(logFile: string, liveXml: () => Promise<string>) {
    this.#logFile = logFile
    this.#liveXml = liveXml
  }

  /** `xml` answers that of the domain as it is. Throws where its first serial port has no log; it need not run yet. */
  static async from(xml: () => Promise<string>): Promise<GuestConsole> {
    const logFile = serialOf(await xml()).match(/<log file='([^']+)'/)?.[1]
    if (!logFile) throw new Error('the first serial port of the domain has no log')
    return new GuestConsole(logFile, xml)
  }

  /** Everything logged so far, also of earlier boots where the log is appended to. */
  async text(): Promise<string> {
    return readFile(this.#logFile, 'utf8').catch(() => '')
  }

  async count(pattern: RegExp): Promise<number> {
    return [...(await this.text()).matchAll(new RegExp(pattern, 'g'))].length
  }

  /** Waits until the pattern has been seen `times` times; answers the last match. TCG under load is slow: 90 s. */
  async sees(pattern: RegExp, { times = 1, withinMs = 90_000 } = {}): Promise<RegExpMatchArray> {
    return eventually(
      async () => {
        const all = [...(await this.text()).matchAll(new RegExp(pattern, 'g'))]
        if (all.length >= times) return all.at(-1) as RegExpMatchArray
        throw new Error(`the console shows: ${(await this.text()).slice(-600)}`)
      },
      { withinMs, everyMs: 100, what: `${pattern} on the console` },
    )
  }

  /** Types one line and waits for an answer that was not there before. */
  async ask(line: string, answer: RegExp, withinMs = 30_000): Promise<RegExpMatchArray> {
    const times = (await this.count(answer)) + 1
    await this.#type(`${line}\n`)
    return this.sees(answer, { times, withinMs })
  }

  close(): void {
    this.#typing?.close()
    this.#typing = undefined
  }

  // QEMU reads a pty only while somebody holds its other end open, and stops writing when nobody drains that end.
  async #type(text: string): Promise<void> {
    if (!this.#typing) {
      const pty = serialOf(await this.#liveXml()).match(/<source path='([^']+)'/)?.[1]
      if (!pty) throw new Error('the domain does not run, or its first serial port is no pty')
      const fd = openSync(pty, constants.O_RDWR | constants.O_NOCTTY | constants.O_NONBLOCK)
      const drain = new ReadStream(fd)
      drain.on('data', () => {})
      drain.on('error', () => {})
      this.#typing = { fd, close: () => drain.destroy() }
    }
    writeSync(this.#typing.fd, text)
  }
}

function serialOf(xml: string): string {
  return xml.match(/<serial type='pty'>.*?<\/serial>/s)?.[0] ?? ''
}
