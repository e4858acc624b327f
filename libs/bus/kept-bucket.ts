/**
 * The bucket of KeptRecords as it has to be: created when it is not there, brought up to date when it
 * is. Safe to repeat, and for several processes at once. What the server cannot do is said, never
 * worked round: a replica count or a time to live that is silently missing would be a broken promise.
 */
import {
  DiscardPolicy,
  type JetStreamManager,
  type NatsConnection,
  RetentionPolicy,
  StorageType,
  type StreamConfig,
  type StreamInfo,
} from 'nats';
import { ApiError, isApiError } from './jetstream.js';

export interface BucketSettings {
  readonly bucket: string;
  readonly description: string;
  /** Servers that keep it: 1, or 3 in a cluster. */
  readonly replicaCount: number;
  /** Set aside by the server; beyond it, what grows is refused. */
  readonly maxBytes: number;
  readonly maxRecordBytes: number;
}

/** The first with a time to live for each message; older ones accept it and forget to act. */
const LOWEST_VERSION = [2, 11] as const;

export function streamOf(bucket: string): string {
  return `KV_${bucket}`;
}

/** '>' for all keys. */
export function subjectOf(bucket: string, key: string): string {
  return `$KV.${bucket}.${key}`;
}

/** Rejects with what the server cannot do. */
export async function prepareBucket(connection: NatsConnection, jsm: JetStreamManager, settings: BucketSettings): Promise<StreamInfo> {
  requireVersion(connection.info?.version ?? '');
  const wanted = configOf(settings);
  try {
    const { config, ...rest } = await jsm.streams.info(wanted.name);
    const current: Partial<StreamConfig> = config;
    const changed = Object.entries(wanted).filter(
      ([name, value]) => JSON.stringify(current[name as keyof StreamConfig]) !== JSON.stringify(value),
    );
    return changed.length === 0 ? { config, ...rest } : await jsm.streams.update(wanted.name, wanted);
  } catch (reason) {
    if (!isApiError(reason, ApiError.STREAM_NOT_FOUND)) throw reason;
    return jsm.streams.add(wanted);
  }
}

/** As `nats kv` expects a bucket, so that operators can look into it. */
function configOf({ bucket, description, replicaCount, maxBytes, maxRecordBytes }: BucketSettings) {
  return {
    name: streamOf(bucket),
    description,
    subjects: [subjectOf(bucket, '>')],
    retention: RetentionPolicy.Limits,
    storage: StorageType.File,
    // Never forget an old record for a new one.
    discard: DiscardPolicy.New,
    max_age: 0,
    max_msgs: -1,
    max_msgs_per_subject: 1,
    max_msg_size: maxRecordBytes,
    max_bytes: maxBytes,
    num_replicas: replicaCount,
    allow_rollup_hdrs: true,
    deny_delete: true,
    allow_direct: false,
    allow_msg_ttl: true,
  };
}

function requireVersion(version: string): void {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  const [lowestMajor, lowestMinor] = LOWEST_VERSION;
  if (major > lowestMajor || (major === lowestMajor && minor >= lowestMinor)) return;
  throw new Error(`expected nats-server ${LOWEST_VERSION.join('.')} or newer, this one is ${version || 'of no version'}`);
}
