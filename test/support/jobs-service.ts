/** JobsService on gRPC, of any number of replicas, with real records and no mesh behind: nothing is drawn but by the test. */
import { generation, jobs } from '#contracts';
import { badRequest, Code, Reason, StatusError } from '#core';
import { Channel, Server } from '#grpc';
import { modelMessage } from '#model-package';
import { systemClock } from '#runtime';
import type { AdmissionConfig } from '../../services/jobs/admission-config.js';
import { resultMissing } from '../../services/jobs/blobs/status.js';
import type { Change, Job } from '../../services/jobs/domain/job.js';
import { UNTOLD } from '../../services/jobs/domain/job.js';
import { createJobsService } from '../../services/jobs/rpc/handlers.js';
import type { Step } from '../../services/jobs/rpc/parts.js';
import { Waits } from '../../services/jobs/run/waits.js';
import { receiverUrlOf } from '../../services/jobs/webhook/receiver-url.js';
import type { JobsStore, Replica } from './jobs-store.js';
import { sampleBeat } from './sample-beat.js';

export const Jobs = jobs.JobsServiceService;

export interface JobsReplica extends Replica {
  readonly channel: Channel;
  readonly door: ReturnType<typeof createJobsService>['door'];
  readonly waits: Waits;
  /** As a replica that runs it would tell of a job. */
  stepped(key: string, step: Step): void;
  stop(): Promise<void>;
}

export interface JobsReplicaOptions {
  readonly config?: Partial<AdmissionConfig>;
  readonly models?: readonly generation.Model[];
  /** By name. */
  readonly pictures?: Map<string, Uint8Array>;
  readonly isFull?: () => boolean;
  readonly maxRecordBytes?: number;
}

/** The model of sampleBeat: z-image-tiny. */
export const sampleModels = sampleBeat().models.map((info) => modelMessage(info, 1));

export async function startJobsReplica(store: JobsStore, options: JobsReplicaOptions = {}): Promise<JobsReplica> {
  const replica = await store.replica();
  const { pictures = new Map<string, Uint8Array>(), models = sampleModels } = options;
  const steps = new Map<string, Step>();
  const listeners = new Set<() => void>();
  const waits = new Waits({ clock: systemClock, wallNow: () => Date.now(), ownerOf: () => 'a' });
  const { door, handlers } = createJobsService({
    ...replica,
    clock: systemClock,
    wallNow: () => Date.now(),
    random: Math.random,
    config: {
      tokenFile: undefined,
      bounds: { maxWaitingCount: 5000, maxStoredBytes: 2 ** 40 },
      expireAfterMs: 60_000,
      maxExpireAfterMs: 3_600_000,
      ...options.config,
    },
    maxRecordBytes: options.maxRecordBytes ?? 1 << 28,
    askModels: async () => models,
    webhookFor: (_, url) => {
      if (url.startsWith('ftp:')) throw webhookRefused();
      return url === '' ? undefined : { url: receiverUrlOf(url) ?? url, ...UNTOLD };
    },
    waits,
    steps: {
      stepOf: (key) => steps.get(key),
      onStep: (_, listener) => {
        listeners.add(listener);
        return () => void listeners.delete(listener);
      },
    },
    blobs: {
      refuseWhenFull: async () => {
        if (options.isFull?.()) throw new StatusError({ code: Code.RESOURCE_EXHAUSTED, reason: Reason.STORE_FULL, message: 'full' });
      },
      delete: async (name) => void pictures.delete(name),
      link: async (name) => (pictures.has(name) ? `https://pictures/${name}` : undefined),
      async *readFrom(name, offset) {
        const data = pictures.get(name);
        if (!data) throw resultMissing(name);
        if (offset > data.length) throw new StatusError({ code: Code.OUT_OF_RANGE, reason: Reason.BAD_REQUEST, message: 'past the end' });
        for (let at = offset; at < data.length; at += 1000)
          yield { data: data.subarray(at, at + 1000), offset: at, totalBytes: data.length };
      },
    },
  });
  const server = new Server({ clock: systemClock, emit: () => {}, maxRequestBytes: 1 << 24 });
  server.add(Jobs, handlers, { endless: ['watch'] });
  const channel = new Channel(`127.0.0.1:${await server.listen('127.0.0.1:0')}`, { clock: systemClock });
  return {
    ...replica,
    channel,
    door,
    waits,
    stepped: (key, step) => {
      steps.set(key, step);
      for (const listener of listeners) listener();
    },
    stop: async () => {
      channel.close();
      await server.close();
    },
  };
}

function webhookRefused(): StatusError {
  const { details, message } = badRequest([{ field: 'options.webhook_url', description: 'expected http or https' }]);
  return new StatusError({ code: Code.INVALID_ARGUMENT, reason: Reason.WEBHOOK_REFUSED, message, ...details });
}

export function pictureRequest(fields: Partial<generation.GenerateRequest> = {}): generation.GenerateRequest {
  return generation.GenerateRequest.fromPartial({ prompt: 'a red circle', ...fields });
}

/** As a replica that runs it would change a job. */
export async function changed(replica: Replica, jobId: string, ...changes: Change[]): Promise<Job> {
  for (const change of changes) await replica.records.changeJob('anonymous', jobId, () => change);
  return (await replica.records.readJob('anonymous', jobId))?.job ?? Promise.reject(new Error(`there is no ${jobId}`));
}

export const begun: Change = { kind: 'begun', worker: 'w/1', nodeId: 'gpu0', atMs: 1000 };

/** One picture of this name and content. */
export function succeeded(attempt: number, blob: string, sizeBytes: number): Change {
  const image = { blob, mimeType: 'image/png', width: 64, height: 64, seed: 7n, sizeBytes, sha256: 'f'.repeat(64) };
  const result = { images: [image], used: generation.UsedParameters.fromPartial({ model: 'z-image-tiny' }), executingMs: 12 };
  return { kind: 'succeeded', worker: 'w/1', attempt, atMs: 2000, result };
}
