/** One request for each row of the route table that succeeds on a prepared fake backend: the checklist of the gateway's tests. */
import { derivedIds, queueKey } from '../gateway/ids.ts'
import { withDrift } from './drift-sample.ts'
import { type FakeBackend, fakeBackend, JOB, OTHER_SERVER, SERVER, TASK, VM } from './fake-backend.ts'

export interface Sample {
  method: string
  path: string
  body?: Record<string, unknown>
  /** What must be otherwise on the prepared backend for it to succeed. */
  prepare?(backend: FakeBackend): void
}

const vm = `/servers/${SERVER}/vms/${VM}`
const host = { memory: 512, disks: [8], networks: ['net0'] }

/** An active ticket and its queue. */
export const QUEUE = queueKey({ server_uuid: SERVER, scope: 'vm', id: VM })
export const TICKET = derivedIds('sample', 'test').ticket(QUEUE)
const tickets = `/servers/${SERVER}/tickets`

export const SAMPLES: Record<string, Sample> = {
  Help: { method: 'GET', path: '/' },
  Ping: { method: 'GET', path: '/ping' },
  OpenApi: { method: 'GET', path: '/openapi.json' },
  MachineList: { method: 'GET', path: '/machines' },
  MachineGet: { method: 'GET', path: '/machines/vm' },
  ServerList: { method: 'GET', path: '/servers?extras=all' },
  ServerGet: { method: 'GET', path: `/servers/${SERVER}` },
  ServerUpdate: { method: 'POST', path: `/servers/${SERVER}`, body: { comments: 'by the window', reserved: true } },
  ServerDelete: { method: 'DELETE', path: `/servers/${SERVER}` },
  BootParamsGetDefault: { method: 'GET', path: '/boot/default' },
  BootParamsSetDefault: { method: 'PUT', path: '/boot/default', body: { kernel_args: { console: 'ttyS0' } } },
  BootParamsUpdateDefault: { method: 'POST', path: '/boot/default', body: { kernel_flags: { '-k': true } } },
  BootParamsGet: { method: 'GET', path: `/boot/${SERVER}` },
  BootParamsSet: { method: 'PUT', path: `/boot/${SERVER}`, body: { kernel_args: { console: 'ttyS0' } } },
  BootParamsUpdate: { method: 'POST', path: `/boot/${SERVER}`, body: { kernel_args: { quiet: null } } },
  PlatformList: { method: 'GET', path: '/platforms?os=true' },
  ServerSysinfoRegister: { method: 'POST', path: `/servers/${SERVER}/sysinfo`, body: { sysinfo: { UUID: SERVER } } },
  ServerEventHeartbeat: { method: 'POST', path: `/servers/${SERVER}/events/heartbeat`, body: {} },
  ServerEventStatusUpdate: { method: 'POST', path: `/servers/${SERVER}/events/status`, body: { vms: {} } },
  ServerSysinfoRefresh: { method: 'POST', path: `/servers/${SERVER}/sysinfo-refresh` },
  ServerTaskHistory: { method: 'GET', path: `/servers/${SERVER}/task-history` },
  CommandExecute: { method: 'POST', path: `/servers/${SERVER}/execute`, body: { script: 'uptime', json: true } },
  ServerRecoveryConfig: {
    method: 'POST',
    path: `/servers/${SERVER}/recovery-config`,
    body: { action: 'stage', recovery_uuid: VM, pivtoken: '{}', template: 'e30=', token: 'secret' },
  },
  ServerSetup: {
    method: 'PUT',
    path: `/servers/${SERVER}/setup`,
    body: { hostname: 'node7', nics: [{ mac: '52:54:00:12:34:56', nic_tags_provided: ['external'] }] },
    prepare: backend => backend.put.server({ setup: false }),
  },
  ServerReboot: { method: 'POST', path: `/servers/${SERVER}/reboot`, body: { drain: true } },
  ServerFactoryReset: {
    method: 'PUT',
    path: `/servers/${SERVER}/factory-reset`,
    prepare: backend => {
      for (const { uuid } of backend.vms.of(SERVER)) backend.put.vm({ uuid, state: 'destroyed', present: false })
    },
  },
  NicUpdate: {
    method: 'PUT',
    path: `/servers/${SERVER}/nics`,
    body: { action: 'update', nics: [{ mac: '52:54:00:12:34:56', nic_tags_provided: ['external'] }] },
  },
  UpdateNicTask: {
    method: 'POST',
    path: `/servers/${SERVER}/nics/update`,
    body: { nics: [{ mac: '52:54:00:12:34:56', nic_tags_provided: ['external'] }] },
  },
  ServerPauseCnAgent: { method: 'POST', path: `/servers/${SERVER}/cn-agent/pause` },
  ServerPauseCnAgentByGet: { method: 'GET', path: `/servers/${SERVER}/cn-agent/pause` },
  ServerResumeCnAgent: { method: 'POST', path: `/servers/${SERVER}/cn-agent/resume` },
  ServerResumeCnAgentByGet: { method: 'GET', path: `/servers/${SERVER}/cn-agent/resume` },
  JobList: { method: 'GET', path: '/jobs' },
  JobGet: { method: 'GET', path: `/jobs/${JOB}` },
  JobWait: { method: 'GET', path: `/jobs/${JOB}/wait?timeout=1` },
  JobCancel: { method: 'POST', path: `/jobs/${JOB}/cancel` },
  DoNop: { method: 'POST', path: `/servers/${SERVER}/nop`, body: { sleep: 1 } },
  LogLevelGet: { method: 'GET', path: '/loglevel' },
  LogLevelSet: { method: 'POST', path: '/loglevel', body: { level: 'debug' } },
  ServerDrift: { method: 'GET', path: `/servers/${SERVER}/drift`, prepare: withDrift },
  ServerDriftSettle: {
    method: 'POST',
    path: `/servers/${SERVER}/drift`,
    body: { vm_uuid: VM, field: 'ram', action: 'enforce' },
    prepare: withDrift,
  },
  ServerStatus: { method: 'GET', path: `/servers/${SERVER}/status` },
  Events: { method: 'GET', path: '/events?kind=vm,task' },
  Info: { method: 'GET', path: '/info' },
  Diagnostics: { method: 'GET', path: '/diagnostics' },
  ServerEnsureImage: {
    method: 'POST',
    path: `/servers/${SERVER}/ensure-image`,
    body: { image_uuid: VM, url: 'http://images.example.com/a', files: [{ sha1: 'a'.repeat(40), size: 1 }] },
  },
  ServerEnsureImageByGet: { method: 'GET', path: `/servers/${SERVER}/ensure-image?image_uuid=${VM}` },
  ImageList: { method: 'GET', path: `/servers/${SERVER}/images` },
  ImageGet: { method: 'GET', path: `/servers/${SERVER}/images/${VM}` },
  ImageDelete: { method: 'DELETE', path: `/servers/${SERVER}/images/${VM}` },
  ServerInstallAgent: {
    method: 'POST',
    path: `/servers/${SERVER}/install-agent`,
    body: { url: 'http://images.example.com/a.deb', sha256: 'a'.repeat(64) },
  },
  ServerUninstallAgents: {
    method: 'POST',
    path: `/servers/${SERVER}/uninstall-agents`,
    body: { agents: ['firewaller'] },
  },
  DatasetList: { method: 'GET', path: `/servers/${SERVER}/datasets` },
  DatasetCreate: { method: 'POST', path: `/servers/${SERVER}/datasets`, body: { dataset: 'zones/a' } },
  SnapshotCreate: { method: 'POST', path: `/servers/${SERVER}/datasets/zones%2Fa/snapshot`, body: { name: 'one' } },
  SnapshotRollback: { method: 'POST', path: `/servers/${SERVER}/datasets/zones%2Fa/rollback`, body: { name: 'one' } },
  SnapshotList: { method: 'GET', path: `/servers/${SERVER}/datasets/zones%2Fa/snapshots` },
  DatasetPropertiesGetAll: { method: 'GET', path: `/servers/${SERVER}/dataset-properties?prop1=used` },
  DatasePropertiesGet: { method: 'GET', path: `/servers/${SERVER}/datasets/zones%2Fa/properties?prop1=used` },
  DatasetPropertiesSet: {
    method: 'POST',
    path: `/servers/${SERVER}/datasets/zones%2Fa/properties`,
    body: { properties: { quota: '1073741824' } },
  },
  DatasetDestroy: { method: 'DELETE', path: `/servers/${SERVER}/datasets/zones%2Fa` },
  ZpoolList: { method: 'GET', path: `/servers/${SERVER}/zpools` },
  VmList: { method: 'GET', path: `/servers/${SERVER}/vms` },
  VmCreate: { method: 'POST', path: `/servers/${SERVER}/vms`, body: { ram: 512 } },
  VmLoad: { method: 'GET', path: vm },
  VmInfo: { method: 'GET', path: `${vm}/info` },
  VmVnc: { method: 'GET', path: `${vm}/vnc` },
  VmActions: { method: 'GET', path: `${vm}/actions` },
  VmStart: { method: 'POST', path: `${vm}/start`, body: {} },
  VmStop: { method: 'POST', path: `${vm}/stop`, body: { force: true } },
  VmKill: { method: 'POST', path: `${vm}/kill`, body: { signal: 'SIGKILL' } },
  VmReboot: { method: 'POST', path: `${vm}/reboot`, body: {} },
  VmDestroy: { method: 'DELETE', path: vm },
  VmUpdate: { method: 'POST', path: `${vm}/update`, body: { ram: 1024 } },
  VmMigrate: {
    method: 'POST',
    path: `${vm}/migrate`,
    body: { migrationTask: { action: 'migrate', record: { target_server_uuid: OTHER_SERVER } } },
    prepare: backend => backend.put.server({ uuid: OTHER_SERVER }),
  },
  VmReprovision: { method: 'POST', path: `${vm}/reprovision`, body: { image_uuid: 'debian-13' } },
  VmNicsUpdate: {
    method: 'POST',
    path: `/servers/${SERVER}/vms/nics/update`,
    body: { original_network: { nic_tag: 'external', vlan_id: 10 }, networks: [{ vlan_id: 20 }] },
  },
  VmProc: { method: 'GET', path: `${vm}/proc` },
  VmImagesCreate: {
    method: 'POST',
    path: `${vm}/images`,
    body: { manifest: { uuid: TASK, name: 'web', version: '1.0' }, compression: 'gzip', incremental: true },
  },
  VmSnapshotList: { method: 'GET', path: `${vm}/snapshots` },
  VmSnapshotCreate: { method: 'PUT', path: `${vm}/snapshots`, body: { snapshot_name: 'before-upgrade' } },
  VmSnapshotRollback: { method: 'PUT', path: `${vm}/snapshots/before-upgrade/rollback` },
  VmSnapshotDestroy: { method: 'DELETE', path: `${vm}/snapshots/before-upgrade` },
  VmDockerExec: { method: 'POST', path: `${vm}/docker-exec`, body: { command: { Cmd: ['uptime'] } } },
  VmDockerCopy: { method: 'POST', path: `${vm}/docker-copy`, body: { path: '/etc/hostname' } },
  VmDockerStats: { method: 'POST', path: `${vm}/docker-stats`, body: { payload: { stream: false } } },
  VmDockerBuild: { method: 'POST', path: `${vm}/docker-build`, body: { payload: { t: 'web:1' } } },
  TaskGet: { method: 'GET', path: `/tasks/${TASK}` },
  TaskWait: { method: 'GET', path: `/tasks/${TASK}/wait?timeout=1` },
  TaskCancel: { method: 'POST', path: `/tasks/${TASK}/cancel` },
  HostProbe: { method: 'GET', path: '/host/one.example.com' },
  HostCreate: { method: 'POST', path: '/host/new.example.com', body: host },
  HostList: { method: 'GET', path: '/hosts' },
  HostGet: { method: 'GET', path: '/hosts/one.example.com' },
  HostsCreate: { method: 'POST', path: '/hosts/new.example.com', body: host },
  HostDelete: { method: 'DELETE', path: '/hosts/one.example.com' },
  HostStart: { method: 'PUT', path: '/hosts/one.example.com/start' },
  HostNetworkProbe: { method: 'GET', path: '/host/one.example.com/network/net0' },
  HostNetworkCreate: {
    method: 'POST',
    path: '/host/one.example.com/network/net1',
    body: { bridge: 'br0', vlan: 10 },
  },
  NetworkList: { method: 'GET', path: '/networks' },
  NetworkGet: { method: 'GET', path: '/networks/net0' },
  NetworkCreate: { method: 'POST', path: '/networks/net1', body: { bridge: 'br0', vlan: 10 } },
  NetworkDelete: { method: 'DELETE', path: '/networks/net0' },
  SelectServer: {
    method: 'POST',
    path: '/allocate',
    body: { vm: { vm_uuid: VM, owner_uuid: VM, ram: 512, brand: 'kvm' }, image: {}, nic_tags: [] },
  },
  ServerCapacity: { method: 'POST', path: '/capacity', body: { servers: [SERVER] } },
  AllocationGet: { method: 'GET', path: `/allocations/${TASK}?server=${SERVER}` },
  FleetExport: { method: 'GET', path: '/fleet' },
  VmPlace: { method: 'POST', path: '/vms', body: { ram: 512 } },
  ServerWaitlistList: { method: 'GET', path: tickets },
  ServerWaitlistTicketCreate: {
    method: 'POST',
    path: tickets,
    body: { scope: 'vm', id: VM, expires_at: '3000', action: 'provision', extra: { ram: 512 } },
  },
  ServerWaitlistTicketsDeleteAll: { method: 'DELETE', path: `${tickets}?force=true` },
  ServerWaitlistGetTicket: { method: 'GET', path: `/tickets/${TICKET}` },
  ServerWaitlistGetTicketByPost: { method: 'POST', path: `/tickets/${TICKET}` },
  ServerWaitlistTicketsWait: { method: 'GET', path: `/tickets/${TICKET}/wait?timeout=1` },
  ServerWaitlistDeleteTickets: { method: 'DELETE', path: `/tickets/${TICKET}` },
  ServerWaitlistTicketRelease: { method: 'PUT', path: `/tickets/${TICKET}/release` },
  ServerWaitlistTicketReleaseByGet: { method: 'GET', path: `/tickets/${TICKET}/release` },
  ServerWaitlistShow: { method: 'GET', path: `/servers/${SERVER}/waitlist` },
  ServerWaitlistEvents: { method: 'GET', path: `/servers/${SERVER}/waitlist/${QUEUE}/events` },
}

/** One running server with two VMs, one of them a host; a task that runs; a node that answers live reads. */
export function preparedBackend(): FakeBackend {
  const backend = fakeBackend()
  backend.put.server({ agents: [{ name: 'cn-agent', version: '2.15.0' }] })
  backend.put.vm({})
  backend.put.vm({ uuid: '55555555-5555-4555-8555-555555555555', name: 'one.example.com' })
  backend.put.task({})
  backend.put.job({})
  const network = { name: 'net0', state: 'active', autostart: 'yes', persistent: 'yes', bridge: 'br0', vlan: 10 }
  backend.reads.set('machine_proc', { value: { 7: { pid: 7, name: 'sh', source: 'guest' } } })
  backend.reads.set('machine_load', { value: { uuid: VM, state: 'running' } })
  backend.reads.set('machine_info', { value: JSON.stringify({ vnc: { host: '10.0.0.1', port: 5900, display: 0 } }) })
  backend.reads.set('machine_snapshots', { value: [] })
  backend.reads.set('network_list', { value: [network] })
  backend.reads.set('network_load', { value: network })
  backend.reads.set('task_history', { value: [] })
  backend.put.sysinfo(SERVER, { 'Zpool Encrypted': true, 'SDC Version': '7.0' })
  backend.results.set('server_sysinfo', { sysinfo: { UUID: SERVER } })
  backend.results.set('command_execute', { err: null, exitCode: 0, signal: null, stdout: 'up\n', stderr: '' })
  backend.reads.set('image_list', { value: [] })
  for (const name of ['zfs_list_datasets', 'zfs_list_snapshots', 'zfs_list_pools'])
    backend.reads.set(name, { value: [] })
  backend.reads.set('zfs_get_properties', { value: { 'zones/a': { used: '0' } } })
  backend.machines.set('vm', { kind: 'vm', initial: 'absent', states: [], mermaid: 'stateDiagram-v2\n' })
  backend.answers.set('vm.actions', () => ({ value: { state: 'running', actions: [{ verb: 'stop', allowed: true }] } }))
  backend.waitlist.command(QUEUE, 'create', {
    ticket_uuid: TICKET,
    server_uuid: SERVER,
    scope: 'vm',
    id: VM,
    expires_at: '3000',
  })
  backend.decisions.set(SERVER, { id: TASK, outcome: 'refused' })
  return backend
}

/** The backend on which the sample of a row succeeds. */
export function preparedFor(row: string): FakeBackend {
  const backend = preparedBackend()
  SAMPLES[row]?.prepare?.(backend)
  return backend
}

/** A second server, so that nothing can be meant without a name. */
export function withFleet(backend: FakeBackend): FakeBackend {
  backend.put.server({ uuid: OTHER_SERVER, hostname: 'other' })
  return backend
}
