/**
 * The worker thread as the main thread sees it: jobs are promises, one at a time.
 *
 * A thread inside onnxruntime must never be terminated (that aborts the whole process), so stopping
 * a job means asking and waiting for the next forward pass; who cannot wait kills the process.
 */
import { Worker as NodeWorker } from 'node:worker_threads';
import { StatusError } from '#core';
import type { Drawn } from '../pipeline/draw.js';
import type { DrawOrder, FromWorker, ImageMessage, Loaded, PlainError, StepMessage, ToWorker, WorkerSettings } from './messages.js';

export interface WorkerOptions extends Omit<WorkerSettings, 'stopCell'> {
  /** The thread died, which leaves nothing to do but end the process. */
  readonly onDied: (error: Error) => void;
}

export interface DrawListener {
  readonly onStep: (step: StepMessage) => void;
  readonly onImage: (image: ImageMessage) => void;
}

interface Job {
  readonly number: number;
  readonly resolve: (message: FromWorker) => void;
  readonly reject: (error: StatusError) => void;
  readonly listener?: DrawListener;
}

export class ComputeWorker {
  readonly #stopCell = new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT);
  readonly #thread: NodeWorker;
  readonly #started: Promise<void>;
  #jobCount = 0;
  #job: Job | undefined;

  constructor({ onDied, ...settings }: WorkerOptions) {
    const workerData: WorkerSettings = { ...settings, stopCell: this.#stopCell };
    this.#thread = new NodeWorker(new URL('./thread.js', import.meta.url), { workerData });
    this.#thread.on('error', onDied);
    this.#thread.on('exit', (code) => onDied(new Error(`the compute thread ended with code ${code}`)));
    this.#started = new Promise((resolve) => {
      this.#thread.on('message', (message: FromWorker) => (message.type === 'started' ? resolve() : this.#receive(message)));
    });
  }

  /** Resolves when the thread runs and onnxruntime is in. */
  started(): Promise<void> {
    return this.#started;
  }

  async load(modelDir: string): Promise<Loaded> {
    const message = await this.#run({ type: 'load', modelDir });
    if (message.type !== 'loaded') throw new TypeError(`expected "loaded", got "${message.type}"`);
    return message.loaded;
  }

  /** `model` is its full name; one that is not loaded is no error. */
  async unload(model: string): Promise<void> {
    await this.#run({ type: 'unload', model });
  }

  async draw(model: string, order: DrawOrder, listener: DrawListener): Promise<Drawn> {
    const message = await this.#run({ type: 'draw', model, order }, listener);
    if (message.type !== 'drawn') throw new TypeError(`expected "drawn", got "${message.type}"`);
    return message.drawn;
  }

  /** The running job fails with CANCELLED before its next forward pass. */
  stop(): void {
    if (this.#job) Atomics.store(new Int32Array(this.#stopCell), 0, this.#job.number);
  }

  #run(message: DistributiveOmit<ToWorker, 'job'>, listener?: DrawListener): Promise<FromWorker> {
    if (this.#job) return Promise.reject(new Error('expected no job in the worker, found one'));
    const number = ++this.#jobCount;
    return new Promise((resolve, reject) => {
      this.#job = { number, resolve, reject, ...(listener ? { listener } : {}) };
      this.#thread.postMessage({ ...message, job: number });
    });
  }

  #receive(message: Exclude<FromWorker, { type: 'started' }>): void {
    const job = this.#job;
    if (message.job !== job?.number) return;
    switch (message.type) {
      case 'step':
        job.listener?.onStep(message);
        break;
      case 'image':
        job.listener?.onImage(message);
        break;
      case 'failed':
        this.#job = undefined;
        job.reject(statusError(message.error));
        break;
      default:
        this.#job = undefined;
        job.resolve(message);
    }
  }
}

function statusError({ cause, ...rest }: PlainError): StatusError {
  return new StatusError({ ...rest, ...(cause === undefined ? {} : { cause: new Error(cause) }) });
}

type DistributiveOmit<Union, Key extends PropertyKey> = Union extends unknown ? Omit<Union, Key> : never;
