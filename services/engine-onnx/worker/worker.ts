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

export interface WorkerOptions extends Omit<WorkerSettings, 'stopCell' | 'pauseCell'> {
  /** The thread died, which leaves nothing to do but end the process. */
  readonly onDied: (error: Error) => void;
}

export interface DrawListener {
  readonly onStep: (step: StepMessage) => void;
  readonly onImage: (image: ImageMessage) => void;
}

/** A request that is being drawn. */
export interface DrawJob {
  readonly drawn: Promise<Drawn>;
  /** It fails with CANCELLED before its next forward pass. */
  stop(): void;
  /** True when it is off, before a next step; false when it came to its end, or was stopped, before that. */
  pause(): Promise<boolean>;
  /** Goes on after a pause. */
  continue(): void;
}

interface Job {
  readonly resolve: (message: FromWorker) => void;
  readonly reject: (error: StatusError) => void;
  readonly listener?: DrawListener;
  paused: boolean;
  stopped: boolean;
  /** Answers who wants it paused. */
  onPause: ((paused: boolean) => void) | undefined;
}

export class ComputeWorker {
  readonly #stopCell = new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT);
  readonly #pauseCell = new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT);
  readonly #thread: NodeWorker;
  readonly #started: Promise<void>;
  #jobCount = 0;
  /** By number: one that runs, and one that is paused. */
  readonly #jobs = new Map<number, Job>();

  constructor({ onDied, ...settings }: WorkerOptions) {
    const workerData: WorkerSettings = { ...settings, stopCell: this.#stopCell, pauseCell: this.#pauseCell };
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

  draw(model: string, order: DrawOrder, listener: DrawListener): DrawJob {
    const { number, answer } = this.#begin({ type: 'draw', model, order }, listener);
    const drawn = answer.then((message) => {
      if (message.type !== 'drawn') throw new TypeError(`expected "drawn", got "${message.type}"`);
      return message.drawn;
    });
    return { drawn, stop: () => this.#stop(number), pause: () => this.#pause(number), continue: () => this.#continue(number) };
  }

  #stop(number: number): void {
    const job = this.#jobs.get(number);
    if (!job) return;
    job.stopped = true;
    if (job.paused) this.#tell({ type: 'drop', job: number });
    else Atomics.store(new Int32Array(this.#stopCell), 0, number);
  }

  #pause(number: number): Promise<boolean> {
    const job = this.#jobs.get(number);
    if (!job || job.stopped || job.paused || job.onPause) return Promise.resolve(false);
    return new Promise((resolve) => {
      job.onPause = resolve;
      Atomics.store(new Int32Array(this.#pauseCell), 0, number);
    });
  }

  #continue(number: number): void {
    const job = this.#jobs.get(number);
    if (!job?.paused) return;
    job.paused = false;
    Atomics.store(new Int32Array(this.#pauseCell), 0, 0);
    this.#tell({ type: 'continue', job: number });
  }

  async #run(message: DistributiveOmit<ToWorker, 'job'>): Promise<FromWorker> {
    return this.#begin(message).answer;
  }

  #begin(message: DistributiveOmit<ToWorker, 'job'>, listener?: DrawListener): { number: number; answer: Promise<FromWorker> } {
    if ([...this.#jobs.values()].some(({ paused }) => !paused)) throw new Error('expected no job in the worker, found one');
    const number = ++this.#jobCount;
    const answer = new Promise<FromWorker>((resolve, reject) => {
      this.#jobs.set(number, { resolve, reject, paused: false, stopped: false, onPause: undefined, ...(listener ? { listener } : {}) });
      this.#tell({ ...message, job: number });
    });
    return { number, answer };
  }

  #tell(message: ToWorker): void {
    this.#thread.postMessage(message);
  }

  #receive(message: Exclude<FromWorker, { type: 'started' }>): void {
    const job = this.#jobs.get(message.job);
    if (!job) return;
    switch (message.type) {
      case 'step':
        job.listener?.onStep(message);
        break;
      case 'image':
        job.listener?.onImage(message);
        break;
      case 'paused':
        job.paused = true;
        if (job.stopped) this.#tell({ type: 'drop', job: message.job });
        this.#answerPause(job, !job.stopped);
        break;
      case 'failed':
        this.#end(message.job, job);
        job.reject(statusError(message.error));
        break;
      default:
        this.#end(message.job, job);
        job.resolve(message);
    }
  }

  #end(number: number, job: Job): void {
    this.#jobs.delete(number);
    this.#answerPause(job, false);
  }

  #answerPause(job: Job, paused: boolean): void {
    job.onPause?.(paused);
    job.onPause = undefined;
  }
}

function statusError({ cause, ...rest }: PlainError): StatusError {
  return new StatusError({ ...rest, ...(cause === undefined ? {} : { cause: new Error(cause) }) });
}

type DistributiveOmit<Union, Key extends PropertyKey> = Union extends unknown ? Omit<Union, Key> : never;
