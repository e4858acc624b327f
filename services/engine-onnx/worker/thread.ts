/**
 * The thread that computes. onnxruntime's `run` blocks whoever calls it, so everything that calls it
 * lives here, and the main thread stays free to answer Status and to cancel. Jobs come one at a time;
 * one of them may be paused meanwhile.
 */
import { type MessagePort, parentPort, workerData } from 'node:worker_threads';
import { Code, cancelled, Reason, StatusError } from '#core';
import { fullName } from '#model-package';
import { systemClock } from '#runtime';
import { Pipeline } from '../pipeline/pipeline.js';
import { determinismClass } from './determinism.js';
import type { FromWorker, PlainError, ToWorker, WorkerSettings } from './messages.js';

const port: MessagePort = parentPort ?? fail('expected to run as a worker thread');
const settings = workerData as WorkerSettings;
const stopCell = new Int32Array(settings.stopCell);
const pauseCell = new Int32Array(settings.pauseCell);
/** By job: one may be paused before the thread has read that an earlier one is dropped. */
const paused = new Map<number, { readonly go: () => void; readonly drop: () => void }>();
/** By the model's full name. */
const pipelines = new Map<string, Pipeline>();

const say = (message: FromWorker, transfer: ArrayBuffer[] = []): void => port.postMessage(message, transfer);

port.on('message', (message: ToWorker) => {
  answer(message).catch((thrown) => say({ type: 'failed', job: message.job, error: plainError(thrown) }));
});
say({ type: 'started' });

async function answer(message: ToWorker): Promise<void> {
  const { job } = message;
  switch (message.type) {
    case 'load': {
      const pipeline = await Pipeline.load(message.modelDir, settings);
      const { info } = pipeline.model;
      await unload(fullName(info)); // of the same name and revision, when it is loaded again
      pipelines.set(fullName(info), pipeline);
      return say({ type: 'loaded', job, loaded: { info, determinismClass: determinismClass(pipeline.model) } });
    }
    case 'unload':
      await unload(message.model);
      return say({ type: 'unloaded', job });
    case 'draw': {
      const pipeline = pipelines.get(message.model);
      if (!pipeline) {
        throw new StatusError({ code: Code.UNAVAILABLE, reason: Reason.ENGINE_NOT_READY, message: `${message.model} is not loaded` });
      }
      let pausedMs = 0;
      const drawn = await pipeline.draw(message.order, {
        now: () => systemClock.now() - pausedMs,
        mayPause: async () => {
          if (Atomics.load(pauseCell, 0) === job) pausedMs += await pause(job);
        },
        checkpoint: () => {
          if (Atomics.load(stopCell, 0) === job) throw cancelled();
        },
        onStep: (step) => say({ type: 'step', job, ...step }),
        onImage: ({ latents: _latents, ...image }) => say({ type: 'image', job, ...image }, [image.rgb.buffer]),
      });
      return say({ type: 'drawn', job, drawn });
    }
    case 'continue':
      return paused.get(job)?.go();
    case 'drop':
      return paused.get(job)?.drop();
    default:
      throw new TypeError(`no such message: ${JSON.stringify(message satisfies never)}`);
  }
}

/** Resolves when the job goes on, with the time that took; rejects when it is dropped. */
async function pause(job: number): Promise<number> {
  const startedAt = systemClock.now();
  try {
    await new Promise<void>((resolve, reject) => {
      paused.set(job, { go: resolve, drop: () => reject(cancelled()) });
      say({ type: 'paused', job });
    });
  } finally {
    paused.delete(job);
  }
  return systemClock.now() - startedAt;
}

async function unload(model: string): Promise<void> {
  const leaving = pipelines.get(model);
  pipelines.delete(model);
  await leaving?.release();
}

function plainError(thrown: unknown): PlainError {
  const { code, reason, message, details, cause } = classify(thrown);
  return {
    code,
    reason,
    message,
    ...details,
    ...(cause === undefined ? {} : { cause: cause instanceof Error ? cause.message : String(cause) }),
  };
}

/** onnxruntime has no codes, only texts. */
function classify(thrown: unknown): StatusError {
  const inner = thrown instanceof StatusError ? thrown.cause : thrown;
  if (inner instanceof Error && /bad_alloc|failed to allocate memory|out of memory/i.test(inner.message)) {
    return new StatusError({ code: Code.RESOURCE_EXHAUSTED, reason: Reason.OUT_OF_MEMORY, message: 'not enough memory', cause: thrown });
  }
  return StatusError.from(thrown);
}

function fail(message: string): never {
  throw new Error(message);
}
