/** Something the operator can put right: commands print its message as one line, without a trace, and exit with 1. */
export class OperatorProblem extends Error {}

/** The line for the terminal; anything else than an OperatorProblem is a bug and keeps its trace. */
export const printed = (error: unknown): string =>
  error instanceof OperatorProblem
    ? error.message
    : error instanceof Error
      ? (error.stack ?? error.message)
      : String(error)
