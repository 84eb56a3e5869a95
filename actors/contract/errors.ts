/**
 * Every error code a caller or an operator can meet: HTTP status and default text.
 * A rejection is a value `{code, message, errors?}`; codes are stable, texts may be made more precise at the place of use.
 */
import * as v from 'valibot'

export const ERRORS = {
  // The request itself
  InvalidContent: { status: 400, text: 'Invalid JSON' },
  InvalidParameters: { status: 400, text: 'Request parameters failed validation' },
  InvalidArgument: { status: 409, text: 'A parameter is not acceptable' },
  UnsupportedMediaType: { status: 415, text: 'Send JSON, a form, or no body' },
  PayloadTooLarge: { status: 413, text: 'The request body is too large' },
  NotAcceptable: { status: 406, text: 'The answer can be application/json or text/plain' },
  MethodNotAllowedError: { status: 405, text: 'The method is not allowed here' },
  ResourceNotFound: { status: 404, text: 'There is no such resource' },
  IdempotencyKeyReused: { status: 422, text: 'This Idempotency-Key was used for a different request' },
  // Compute nodes
  ServerNotRunning: { status: 409, text: 'Operation attempted on server which is not running' },
  ServerDeleted: { status: 409, text: 'The record of the server was deleted' },
  ServerAmbiguous: { status: 400, text: 'Several servers are registered: name one with ?server_uuid=' },
  NoAllocatableServersError: { status: 409, text: 'No compute resources available' },
  ClaimOutdated: { status: 409, text: 'Room on the server was claimed or given up meanwhile' },
  AgentNotConnected: { status: 503, text: 'The agent of this server is not connected' },
  AgentPaused: { status: 503, text: 'CN Agent is not accepting tasks for maintenance' },
  JobRunning: { status: 409, text: 'Another job of this server is running' },
  JobTimedOut: { status: 504, text: 'A step of the job did not end within its limit' },
  JobCanceled: { status: 409, text: 'The job was canceled' },
  ServerNotSetup: { status: 409, text: 'Server is not setup' },
  ServerCheckFailed: { status: 409, text: 'The server does not have what a compute node needs' },
  ScriptFailed: { status: 409, text: 'A script ended with an error' },
  NetworkExists: { status: 409, text: 'The network exists already' },
  NetworkNotFound: { status: 404, text: 'There is no such network' },
  NetworkInUse: { status: 409, text: 'A VM uses the network' },
  BridgeNotFound: { status: 409, text: 'The server has no such Open vSwitch bridge' },
  NicTagInUse: { status: 409, text: 'A VM uses the nic tag' },
  NicNotFound: { status: 409, text: 'The server has no such NIC on an Open vSwitch bridge' },
  VmsExist: { status: 409, text: 'There are VMs on the server' },
  ExecuteNotAllowed: { status: 409, text: 'The agent of this server is configured not to run scripts' },
  NicTagNotFound: { status: 409, text: 'The server has no bridge for this nic tag' },
  InvalidVersion: { status: 400, text: 'Unsupported compute node version' },
  GuestAgentNotConnected: { status: 409, text: 'The guest agent of the VM does not answer' },
  FileNotFound: { status: 404, text: 'There is no such file in the VM' },
  PathNotDirectory: { status: 400, text: 'The path is not a directory' },
  DockerCopyStoppedContainerNoPlatformSupport: {
    status: 409,
    text: 'The files of a VM that does not run cannot be copied',
  },
  TooManyStreams: { status: 409, text: 'As many streams as may be are open or waited for' },
  BuildahNotInstalled: { status: 409, text: 'The server has no buildah' },
  BuildNotAllowed: { status: 409, text: 'The agent of this server is configured not to build images' },
  // VMs and hosts
  VmExists: { status: 409, text: 'The VM exists already' },
  HostExists: { status: 409, text: 'The host exists already' },
  VmNotFound: { status: 404, text: 'There is no such VM' },
  VmNotRunning: { status: 409, text: 'The VM is not running' },
  VmNotStopped: { status: 409, text: 'The VM is not stopped' },
  VmOnOtherServer: { status: 409, text: 'The VM is on another server' },
  VmBusy: { status: 409, text: 'Another operation of this VM is in flight' },
  VmDestroyed: { status: 409, text: 'The VM is destroyed' },
  TooManyWaiting: { status: 409, text: 'Too many operations of this VM are waiting' },
  SnapshotExists: { status: 409, text: 'The VM has a snapshot of this name already' },
  SnapshotNotFound: { status: 404, text: 'The VM has no such snapshot' },
  SnapshotsExist: { status: 409, text: 'The VM has snapshots, which this would make useless: delete them first' },
  TooManySnapshots: { status: 409, text: 'The VM has as many snapshots as it may' },
  ImageNotInstalled: { status: 409, text: 'The image is not installed on the server' },
  ImageExists: { status: 409, text: 'The server has an image of this name already' },
  ImageHasNoOrigin: { status: 409, text: 'The disk was not made from an image' },
  ImageServiceFailed: { status: 502, text: 'The image service does not take the image' },
  StorageNotReadable: { status: 409, text: 'The agent may not read the files of the storage pool' },
  PrepareScriptFailed: { status: 409, text: 'The script that prepares the image failed' },
  ImageNotFound: { status: 404, text: 'There is no such image on the server' },
  ZfsNotAvailable: { status: 409, text: 'The server has no ZFS' },
  DatasetNotFound: { status: 404, text: 'There is no such dataset' },
  DatasetExists: { status: 409, text: 'The dataset exists already' },
  DatasetBusy: { status: 409, text: 'The dataset is in use' },
  ZfsFailed: { status: 500, text: 'ZFS refused' },
  ImageInUse: { status: 409, text: 'Disks of VMs stand on the image' },
  ImageSourceUnknown: { status: 409, text: 'Nothing says where the image can be fetched' },
  ImageSourceInvalid: { status: 409, text: 'The image cannot be fetched' },
  ImageChecksumMismatch: { status: 409, text: 'The file is not what its checksum says' },
  ImageInvalid: { status: 409, text: 'The file is no image that can be used' },
  AgentInstallNotAllowed: { status: 409, text: 'The server is configured not to install agents' },
  AgentInstallFailed: { status: 409, text: 'The agent cannot be installed' },
  InsufficientStorage: { status: 409, text: 'The storage pool has too little free space' },
  InsufficientMemory: { status: 409, text: 'The server has too little free memory' },
  InstallSourceInvalid: { status: 409, text: 'The install location is not a usable installer tree' },
  SignalNotSupported: { status: 409, text: 'This signal cannot be sent to a VM' },
  // Migration
  MigrationNotFound: { status: 409, text: 'The VM is not being migrated' },
  MigrationNotSupported: { status: 409, text: 'This VM cannot be migrated' },
  LiveMigrationNotSupported: { status: 409, text: 'This VM cannot be migrated while it runs' },
  MigrationInterrupted: { status: 503, text: 'The disks did not reach the other server' },
  MigrationCorrupted: { status: 500, text: 'A disk is not on the other server what it is here' },
  MigrationCommitted: { status: 409, text: 'The VM belongs to the other server already' },
  MigrationUncertain: { status: 409, text: 'Nobody can say whether the VM runs on the other server' },
  MigrationLeftovers: {
    status: 409,
    text: 'An earlier migration of the VM has left something that is not removed yet',
  },
  // Tasks
  TaskTimedOut: { status: 504, text: 'The task did not end within its limit' },
  TaskCancelled: { status: 409, text: 'The task was cancelled' },
  TaskFailed: { status: 500, text: 'The task failed' },
  TaskNotSupported: { status: 409, text: 'The agent of this server does not know this task' },
  RequestTimedOut: { status: 504, text: 'The operation goes on; ask for its task' },
  HypervisorUnavailable: { status: 503, text: 'The hypervisor does not answer' },
  HypervisorError: { status: 500, text: 'The hypervisor refused' },
  // Waitlist
  QueueFull: { status: 409, text: 'The queue has as many open tickets as it may' },
  TicketFinished: { status: 409, text: 'The ticket is finished' },
  PreconditionFailed: { status: 412, text: 'A precondition of the request does not hold' },
  // Muster itself
  ServiceUnavailableError: { status: 503, text: 'No actor host answers for this now; try again' },
  VersionTooNew: { status: 503, text: 'The record was written by a newer release' },
  InternalError: { status: 500, text: 'Internal error' },
} as const satisfies Record<string, { status: number; text: string }>

export type ErrorCode = keyof typeof ERRORS

/** One failed rule of one field, as CNAPI words it. */
export const FieldError = v.object({ field: v.string(), code: v.string(), message: v.string() })
export type FieldError = v.InferOutput<typeof FieldError>

/** A refusal as it travels: on NATS in a reply, over HTTP as the body. */
export const Rejection = v.object({
  code: v.picklist(Object.keys(ERRORS) as ErrorCode[]),
  message: v.string(),
  errors: v.optional(v.array(FieldError)),
})
export type Rejection = v.InferOutput<typeof Rejection>

/** A rejection with the table's text unless a more precise one is given. */
export function rejection(code: ErrorCode, message?: string, errors?: FieldError[]): Rejection {
  return { code, message: message ?? ERRORS[code].text, ...(errors ? { errors } : {}) }
}
