/** JobsService, put together: its door, its admission, and a handler for each method. */
import { Door } from '#access';
import type { generation, jobs } from '#contracts';
import type { Random } from '#core';
import type { HandlersOf } from '#grpc';
import { Admission, type AdmissionOptions } from '../admission.js';
import type { AdmissionConfig } from '../admission-config.js';
import type { Blobs } from '../blobs/blobs.js';
import { Bounds } from '../bounds.js';
import { ModelBook } from '../model-book.js';
import { Callers } from './callers.js';
import { changeHandlers } from './change.js';
import { download } from './download.js';
import type { RpcParts } from './parts.js';
import { readHandlers } from './read.js';
import { Reader } from './reader.js';
import { submit } from './submit.js';
import { submitBatch } from './submit-batch.js';
import { watch } from './watch.js';

export interface JobsServiceOptions extends Pick<RpcParts, 'clock' | 'index' | 'records' | 'steps' | 'waits' | 'wallNow'> {
  readonly config: AdmissionConfig;
  readonly random: Random;
  readonly blobs: RpcParts['blobs'] & Pick<Blobs, 'refuseWhenFull'>;
  readonly webhookFor: AdmissionOptions['webhookFor'];
  /** Asks a router. */
  readonly askModels: () => Promise<readonly generation.Model[]>;
  /** That JetStream was given for all records. */
  readonly maxRecordBytes: number;
}

/** `door` is to be told of the tokens (libs/access, TokenSource). */
export function createJobsService(options: JobsServiceOptions): { handlers: HandlersOf<typeof jobs.JobsServiceService>; door: Door } {
  const { askModels, blobs, clock, config, index, maxRecordBytes, records } = options;
  const { bounds, expireAfterMs, maxExpireAfterMs, tokenFile } = config;
  // Callers come through routers, which have no address of their own to be told by.
  const door = new Door({ clock, needsToken: tokenFile !== undefined, anonymousRatePerSec: 0 });
  const models = new ModelBook({ clock, ask: askModels });
  const parts: RpcParts = {
    ...options,
    expireAfterMs,
    callers: new Callers(door),
    reader: new Reader(records, index),
    bounds: new Bounds({ ...bounds, index, maxRecordBytes, refuseWhenFull: (bytes) => blobs.refuseWhenFull(bytes) }),
    admission: new Admission({ ...options, expireAfterMs, maxExpireAfterMs, models: () => models.models() }),
  };
  return { handlers: handlersOf(parts), door };
}

function handlersOf(parts: RpcParts): HandlersOf<typeof jobs.JobsServiceService> {
  return {
    submit: submit(parts),
    submitBatch: submitBatch(parts),
    ...readHandlers(parts),
    ...changeHandlers(parts),
    watch: watch(parts),
    download: download(parts),
  };
}
