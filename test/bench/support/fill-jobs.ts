/** Jobs that have succeeded, written into the bucket as the service would have written them, filled-0, filled-1, … */
import { ANONYMOUS_TENANT } from '#access';
import { connectBus } from '#bus';
import { generation } from '#contracts';
import { systemClock, systemRandom } from '#runtime';
import { blobName } from '../../../services/jobs/blobs/blob-name.js';
import type { Job } from '../../../services/jobs/domain/job.js';
import { JobRecords } from '../../../services/jobs/store/job-records.js';

/** Writes on their way at once. */
const WRITER_COUNT = 256;
const DAY_MS = 86_400_000;
const MIME_TYPE = 'image/png';

/** The bucket must be there: the service makes it. */
export async function fillJobs(url: string, count: number): Promise<void> {
  const bus = connectBus({ url, name: 'bench', credentials: undefined, clock: systemClock, random: systemRandom, emit: () => {} });
  let follows = () => {};
  const following = new Promise<void>((resolve) => {
    follows = resolve;
  });
  const records = new JobRecords({
    bus,
    clock: systemClock,
    // As the service has it.
    settings: {
      bucket: 'dmesh_jobs',
      description: 'Diffusion Mesh: durable jobs',
      replicaCount: 1,
      maxBytes: 2 * 1024 ** 3,
      maxRecordBytes: 1024 ** 2,
    },
    listener: {
      onJob: () => {},
      onBatch: () => {},
      onRemoved: () => {},
      onUnreadable: () => {},
      onState: ({ kind }) => {
        if (kind === 'following') follows();
      },
    },
  });
  records.start();
  try {
    await following;
    let next = 0;
    const writer = async () => {
      for (let index = next++; index < count; index = next++) await records.createJob(jobOf(index));
    };
    await Promise.all(Array.from({ length: WRITER_COUNT }, writer));
  } finally {
    records.stop();
    await bus.close();
  }
}

function jobOf(index: number): Job {
  const jobId = `filled-${index}`;
  const uid = `uid${index}`;
  const tenant = ANONYMOUS_TENANT;
  const nowMs = Date.now();
  const seed = BigInt(index);
  const size = { width: 1024, height: 1024 };
  const sha256 = index.toString(16).padStart(64, '0');
  const blob = blobName({ tenant, jobId, uid, attempt: 1, imageIndex: 0, sha256, mimeType: MIME_TYPE });
  const parameters = {
    ...size,
    steps: 8,
    model: 'z-image-tiny',
    prompt: `a picture, number ${index}, of a red circle on a blue background`,
  };
  return {
    uid,
    tenant,
    jobId,
    batchId: '',
    request: generation.GenerateRequest.fromPartial({ ...parameters, seed }),
    priority: 'low',
    submittedAtMs: nowMs - 2000,
    expiresAtMs: nowMs + DAY_MS,
    round: 1,
    attempt: 1,
    failedAttempts: 0,
    state: {
      kind: 'succeeded',
      nodeId: 'node-1',
      startedAtMs: nowMs - 1000,
      endedAtMs: nowMs,
      result: {
        images: [{ blob, mimeType: MIME_TYPE, ...size, seed, sizeBytes: 1_500_000, sha256 }],
        used: generation.UsedParameters.fromPartial({ ...size, steps: 8 }),
        executingMs: 1000,
      },
    },
  };
}
