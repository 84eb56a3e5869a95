/** The journal: whatever is done to it in whatever order, what was acknowledged is there after a restart, and only that. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import * as assert from 'uvu/assert'
import { historyMax, type Journal, openJournal } from '../../hypervisor-agent/journal.ts'
import { suite } from '../suite.ts'

const test = suite('agent journal')
const seed = Number(process.env['SEED'] ?? Date.now() % 2 ** 31)
console.log(`seed ${seed}: repeat with SEED=${seed}`)
const idOf = (n: number) => `00000000-0000-4000-8000-${String(n).padStart(12, '0')}`
const offerOf = (n: number) => ({ id: idOf(n), task: 'nop', params: { n } })
const endOf = (n: number) => ({ id: idOf(n), status: 'complete' as const, at: 1 })
const noDamage = (file: string) => {
  throw new Error(`${file} is damaged`)
}

async function inFolder(body: (folder: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'muster-journal-'))
  try {
    await body(folder)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

type Step = { what: 'add' | 'mark' | 'end' | 'close' | 'reopen'; n: number }

const step: fc.Arbitrary<Step> = fc.record({
  what: fc.constantFrom('add', 'mark', 'end', 'close', 'reopen'),
  n: fc.integer({ min: 0, max: 24 }),
})

test(
  'it holds what was acknowledged, across any restarts, and its history is the last closed ones',
  () =>
    fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 60 }), steps =>
        inFolder(async folder => {
          const open = new Map<number, { marks: number; isEnded: boolean }>()
          const closed: number[] = []
          let journal = await openJournal(folder, noDamage)
          for (const [at, { what, n }] of steps.entries()) {
            const known = open.get(n)
            if (what === 'reopen') journal = await openJournal(folder, noDamage)
            if (what === 'add' && !closed.includes(n)) {
              await journal.add(offerOf(n), at)
              if (!known) open.set(n, { marks: 0, isEnded: false })
            }
            if (what === 'mark' && known) {
              known.marks += 1
              await journal.change(idOf(n), { marks: { done: known.marks } })
            }
            if (what === 'end' && known) {
              known.isEnded = true
              await journal.change(idOf(n), { ended: endOf(n) })
            }
            if (what === 'close') {
              await journal.close(idOf(n))
              if (known) closed.push(n)
              open.delete(n)
            }
            holds(journal, open, closed)
          }
          holds(await openJournal(folder, noDamage), open, closed)
        }),
      ),
      { numRuns: 60, seed },
    ),
  { limitMs: 90_000 },
)

function holds(journal: Journal, open: Map<number, { marks: number; isEnded: boolean }>, closed: number[]): void {
  assert.equal(
    journal
      .open()
      .map(entry => [entry.offer.params['n'], entry.marks['done'] ?? 0, entry.ended !== null])
      .sort((a, b) => Number(a[0]) - Number(b[0])),
    [...open].map(([n, { marks, isEnded }]) => [n, marks, isEnded]).sort((a, b) => Number(a[0]) - Number(b[0])),
  )
  assert.equal(
    journal.history().map(entry => entry.offer.params['n']),
    closed.slice(-historyMax),
  )
}

test('changes made at once are all kept', () =>
  inFolder(async folder => {
    const journal = await openJournal(folder, noDamage)
    const entry = await journal.add(offerOf(1), 0)
    await Promise.all(
      Array.from({ length: 20 }, (_, n) => journal.change(entry.offer.id, { marks: { ...entry.marks, last: n } })),
    )
    assert.is((await openJournal(folder, noDamage)).find(idOf(1))?.marks['last'], 19)
  }))

test('a crash between history and removal does not bring a closed task back', () =>
  inFolder(async folder => {
    const journal = await openJournal(folder, noDamage)
    await journal.add(offerOf(1), 0)
    await journal.change(idOf(1), { ended: endOf(1) })
    const file = join(folder, `${idOf(1)}.json`)
    const text = readFileSync(file)
    await journal.close(idOf(1))
    writeFileSync(file, text)
    const again = await openJournal(folder, noDamage)
    assert.equal(again.open(), [])
    assert.is(again.history().length, 1)
  }))

test('a damaged entry is put aside and named; the others are there', () =>
  inFolder(async folder => {
    const journal = await openJournal(folder, noDamage)
    await journal.add(offerOf(1), 0)
    await journal.add(offerOf(2), 0)
    writeFileSync(join(folder, `${idOf(1)}.json`), '{"offer":')
    const damaged: string[] = []
    const again = await openJournal(folder, file => void damaged.push(file))
    assert.equal(
      again.open().map(entry => entry.offer.id),
      [idOf(2)],
    )
    assert.equal(damaged, [join(folder, `${idOf(1)}.json`)])
    assert.ok(readdirSync(folder).includes(`${idOf(1)}.json.damaged`))
  }))

test('a half-written file of a crash is not an entry', () =>
  inFolder(async folder => {
    await openJournal(folder, noDamage)
    writeFileSync(join(folder, `${idOf(1)}.json.new`), '{"off')
    assert.equal((await openJournal(folder, noDamage)).open(), [])
  }))

test.run()
