/** NATS with JetStream, and replicas' views of the jobs kept there, for tests of services/jobs. */
import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { type Bus, connectBus } from '#bus';
import { generation } from '#contracts';
import { findNatsServer, type NatsServer, startNatsServer } from '#local-mesh';
import { systemClock } from '#runtime';
import type { Job } from '../../services/jobs/domain/job.js';
import { JobIndex } from '../../services/jobs/index/job-index.js';
import { JobRecords } from '../../services/jobs/store/job-records.js';

export interface JobsStore {
  readonly nats: NatsServer;
  /** Resolves when it follows the bucket. */
  replica(): Promise<Replica>;
  /** Where it was, with what it had kept. */
  restartNats(): Promise<void>;
  stop(): Promise<void>;
}

export interface Replica {
  readonly bus: Bus;
  readonly index: JobIndex;
  readonly records: JobRecords;
}

export async function startJobsStore(): Promise<JobsStore> {
  const dir = await mkdtemp(path.join(os.tmpdir(), 'dmesh-jobs-'));
  const cacheDir = path.resolve(import.meta.dirname, '../../.cache');
  const { path: file } = await findNatsServer({ env: process.env, cacheDir, log: () => {} });
  let nats = await startNatsServer({ path: file, jetstream: true, dir });
  const replicas: Replica[] = [];
  return {
    get nats() {
      return nats;
    },
    async replica() {
      const bus = connectBus({ url: nats.url, name: 'test', clock: systemClock, random: () => 0, emit: () => {}, pingIntervalMs: 200 });
      const index = new JobIndex({ clock: systemClock, onUnreadable: () => {} });
      const settings = { bucket: 'dmesh_jobs', description: 'of a test', replicaCount: 1, maxBytes: 1 << 28, maxRecordBytes: 1 << 20 };
      const records = new JobRecords({ bus, clock: systemClock, settings, listener: index.listener });
      replicas.push({ bus, index, records });
      const following = new Promise<void>((resolve) => index.onState(({ kind }) => kind === 'following' && resolve()));
      records.start();
      await following;
      return { bus, index, records };
    },
    async restartNats() {
      nats = await startNatsServer({ path: file, jetstream: true, dir, port: nats.port });
    },
    async stop() {
      for (const { bus, records } of replicas) {
        records.stop();
        await bus.close();
      }
      await nats.stop();
      await rm(dir, { recursive: true, force: true });
    },
  };
}

export function queuedJob(jobId: string, fields: Partial<Job> = {}): Job {
  return {
    uid: `${jobId}-uid`,
    tenant: 'acme',
    jobId,
    batchId: '',
    request: generation.GenerateRequest.fromPartial({ model: 'm', prompt: 'a red circle', seed: 7n }),
    priority: 'low',
    submittedAtMs: 1000,
    expiresAtMs: 9000,
    round: 1,
    attempt: 0,
    failedAttempts: 0,
    state: { kind: 'queued', notBeforeMs: 0 },
    ...fields,
  };
}
