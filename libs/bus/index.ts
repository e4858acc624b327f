export type { Beat, EngineReport, GpuReport, Leave, ModelReport, RunningReport } from './beat.js';
export { BeatPublisher, type BeatPublisherOptions } from './beat-publisher.js';
export { type Bus, type BusMessage, type BusOptions, connectBus } from './bus.js';
export { type BusConfig, readBusConfig } from './config.js';
export { CONTROL_ACTIONS, type ControlAction, type ControlReply, sendControl, serveControl } from './control.js';
export type { BusCredentials } from './credentials.js';
export type { BusEvent } from './events.js';
export { makeIncarnation } from './incarnation.js';
export type { BucketSettings } from './kept-bucket.js';
export { type KeptRecord, KeptRecords, type KeptRecordsOptions } from './kept-records.js';
export { type KeptState, KeptValue, type KeptValueOptions } from './kept-value.js';
export type { Member, MemberAspect, MemberState } from './member.js';
export { Membership, type MembershipOptions } from './membership.js';
export type { FreezeCause, MembershipEvent } from './membership-events.js';
export { callRoll, MembershipSubscriber, type MembershipSubscriberOptions } from './membership-subscriber.js';
export { type Parsed, parseBeat, parseLeave } from './parse-beat.js';
export { registerService, type ServiceRegistration } from './register-service.js';
export {
  type Replica,
  ReplicaAnnouncer,
  type ReplicaAnnouncerOptions,
  ReplicaDirectory,
  type ReplicaDirectoryOptions,
  type ReplicaEvent,
  type ReplicaService,
} from './replicas.js';
export { parseServers, shownUrl } from './server-list.js';
export { ALL_JOB_EVENTS, isNodeId, jobEventSubject, requireNodeId } from './subjects.js';
