/** Waits for a condition with a bound: the only way a test waits. Returns the first truthy value of `condition`. */
export async function eventually<T>(
  condition: () => T | Promise<T>,
  { withinMs = 5_000, everyMs = 20, what = 'the condition' } = {},
): Promise<Exclude<T, false | null | undefined | 0 | ''>> {
  const end = performance.now() + withinMs
  let last: unknown
  for (;;) {
    try {
      const value = await condition()
      if (value) return value as Exclude<T, false | null | undefined | 0 | ''>
      last = value
    } catch (error) {
      last = error
    }
    if (performance.now() > end) {
      throw new Error(`${what} did not hold within ${withinMs} ms; last: ${describe(last)}`, { cause: last })
    }
    await new Promise(resolve => setTimeout(resolve, everyMs))
  }
}

function describe(value: unknown): string {
  return value instanceof Error ? value.message : (JSON.stringify(value) ?? String(value))
}
