/** Programs in a guest that somebody follows, and the guest's files, through the guest agent there: part of `Hypervisor`, with the same rules. */
export interface GuestPrograms {
  /**
   * Starts a program once for its id: the same again, until it is ended or forgotten, starts nothing. It is killed when nobody reads it for
   * some minutes, unless it is detached. VmNotRunning, GuestAgentNotConnected.
   */
  startProgram(uuid: string, program: GuestProgram): Promise<void>
  /** What it has written since this was asked last, and its code once all is told. For the one who started it and did not detach it. */
  readProgram(uuid: string, id: string): Promise<ProgramOutput>
  /** Adds to its input, or ends that. */
  feedProgram(uuid: string, id: string, input: Uint8Array | 'end'): Promise<void>
  /** Kills it if it runs, and removes what is kept of it in the guest. An unknown one is success. */
  endProgram(uuid: string, id: string): Promise<void>
  /** Lets a detached one go on with nothing kept of it. */
  forgetProgram(uuid: string, id: string): Promise<void>
  /** FileNotFound. A link is described itself; `isDirectory` says where it leads. */
  statGuestFile(uuid: string, path: string): Promise<GuestFile>
  /** Bytes of a file from there on; none at its end. FileNotFound. */
  readGuestFile(uuid: string, path: string, offset: number): Promise<Buffer>
}

export interface GuestProgram {
  /** Letters, digits and dashes. */
  id: string
  /** The first is looked for on the PATH; never a word of a shell. */
  command: readonly string[]
  /** NAME=value, beside PATH and HOME. */
  env: readonly string[]
  folder: string
  /** user or user:group; absent: root. */
  user?: string
  /** It is given input, until that is ended. */
  input: boolean
  /** Its output is thrown away and nobody reads it. */
  detached: boolean
}

export interface ProgramOutput {
  stdout: Buffer
  stderr: Buffer
  /** 0 to 255; 128 and more is a signal's number more. */
  code?: number
}

export interface GuestFile {
  /** As Linux has it: type and permissions. */
  mode: number
  size: number
  /** ms since the epoch. */
  modified_at: number
  link?: string
  isDirectory: boolean
}
