/** What the runtime needs of a logger: pino's shape, so that tests can listen. */
export interface Log {
  info(fields: object, text: string): void
  warn(fields: object, text: string): void
  error(fields: object, text: string): void
}
