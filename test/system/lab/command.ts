/** Runs one program of the lab with a time limit and answers its standard output; a failure carries what it printed. */
import { execFile } from 'node:child_process'

export interface CommandOptions {
  timeoutMs?: number
  cwd?: string
  env?: NodeJS.ProcessEnv
  input?: string
}

/** Throws an Error naming the program, its exit code and its output when it fails or exceeds `timeoutMs` (60 s). */
export function command(program: string, args: readonly string[], options: CommandOptions = {}): Promise<string> {
  const { timeoutMs = 60_000, cwd, env = process.env, input } = options
  return new Promise((resolve, reject) => {
    const child = execFile(
      program,
      args,
      {
        timeout: timeoutMs,
        killSignal: 'SIGKILL',
        cwd,
        env: { ...env, LC_ALL: 'C', PATH: `${env['PATH'] ?? ''}:/usr/sbin:/sbin` },
        maxBuffer: 64 * 1024 * 1024,
      },
      (error, stdout, stderr) => {
        if (!error) return resolve(stdout)
        const how = error.killed ? `did not end within ${timeoutMs} ms` : `failed (${error.code ?? 'no exit code'})`
        const said = stderr.trim() || stdout.trim()
        reject(new Error(`${program} ${args.join(' ')} ${how}: ${said.slice(-2_000)}`, { cause: error }))
      },
    )
    if (input !== undefined) child.stdin?.end(input)
    else child.stdin?.end()
  })
}

/** The standard output, or undefined where the program fails: for questions whose answer may be "no". */
export async function attempt(
  program: string,
  args: readonly string[],
  options?: CommandOptions,
): Promise<string | undefined> {
  try {
    return await command(program, args, options)
  } catch {
    return undefined
  }
}
