/**
 * Every subject the mesh uses on NATS, in one place. `nats sub 'dmesh.>'` shows them all. The version
 * is part of the name, so that two generations of the mesh can share a NATS while one replaces the other.
 */

const ROOT = 'dmesh.v1';

/** Services whose replicas announce themselves. */
type Service = 'router' | 'jobs';

/** Asks every node to beat at once. */
export const ROLL_CALL = `${ROOT}.roll-call`;
export const ALL_BEATS = `${ROOT}.node.*.beat`;
export const ALL_LEAVES = `${ROOT}.node.*.leave`;

/** What the id of a node or a replica may be: it is one token of a subject, a label of a metric and part of file names. */
const NODE_ID = /^[A-Za-z0-9_-]{1,64}$/;

export function isNodeId(text: string): boolean {
  return NODE_ID.test(text);
}

/** Throws a RangeError that names the rule. */
export function requireNodeId(text: string): string {
  return requireId(text, 'node id');
}

function requireReplicaId(text: string): string {
  return requireId(text, 'replica id');
}

function requireId(text: string, what: string): string {
  if (!isNodeId(text)) throw new RangeError(`${what}: expected 1 to 64 of A-Z a-z 0-9 _ -, got ${JSON.stringify(text)}`);
  return text;
}

export function beatSubject(nodeId: string): string {
  return `${ROOT}.node.${requireNodeId(nodeId)}.beat`;
}

export function leaveSubject(nodeId: string): string {
  return `${ROOT}.node.${requireNodeId(nodeId)}.leave`;
}

export function controlSubject(nodeId: string): string {
  return `${ROOT}.node.${requireNodeId(nodeId)}.control`;
}

export function allReplicaBeats(service: Service): string {
  return `${ROOT}.${service}.*.beat`;
}

export function allReplicaLeaves(service: Service): string {
  return `${ROOT}.${service}.*.leave`;
}

/** Asks every replica of the service to beat at once. */
export function replicaRollCall(service: Service): string {
  return `${ROOT}.${service}.roll-call`;
}

export function replicaBeatSubject(service: Service, id: string): string {
  return `${ROOT}.${service}.${requireReplicaId(id)}.beat`;
}

export function replicaLeaveSubject(service: Service, id: string): string {
  return `${ROOT}.${service}.${requireReplicaId(id)}.leave`;
}

/** What happens to a job: each change, and the steps of one that runs. `jobId`: 1 to 64 of A-Z a-z 0-9 _ -. */
export function jobEventSubject(jobId: string): string {
  return `${ROOT}.job.${jobId}.event`;
}

export const ALL_JOB_EVENTS = `${ROOT}.job.*.event`;
