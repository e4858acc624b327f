/**
 * Watch: the job as it is, and again at every change and step and when it waits for something else, until it has ended.
 * From the revision seen last on, so that a stream that broke goes on where it was. Changes are told one by one; steps
 * and what it waits for as they are when there is room.
 */
import type { jobs } from '#contracts';
import { badRequest, Code, Reason, StatusError } from '#core';
import type { ServerStreamHandler } from '#grpc';
import { isEnded } from '../domain/job.js';
import { jobKey } from '../domain/record.js';
import { unknownJob } from '../refusals.js';
import type { StoredJob } from '../store/job-records.js';
import { jobMessage } from './message.js';
import type { RpcParts } from './parts.js';

export function watch(parts: RpcParts): ServerStreamHandler<jobs.WatchRequest, jobs.WatchResponse> {
  const { callers, reader } = parts;
  return async (call, out) => {
    const { tenant } = await callers.known(call);
    const { fromRevision, jobId } = call.request;
    call.notes.job_id = jobId.slice(0, 64);
    const following = new Following(parts, jobKey(tenant, jobId), call.signal);
    try {
      const first = await reader.job(tenant, jobId);
      if (fromRevision > BigInt(first.revision)) throw fromTheFuture(fromRevision, first.revision);
      if (fromRevision < BigInt(first.revision)) await out.write({ job: jobMessage(parts, first) });
      for (let now = first; !isEnded(now.job); ) {
        const next = await following.next(now.revision);
        if (next === 'removed') throw unknownJob(jobId);
        if (next === 'stepped' && now.job.state.kind !== 'running') continue;
        if (next === 'waits' && now.job.state.kind !== 'queued') continue;
        if (typeof next === 'object') now = next;
        await out.write({ job: jobMessage(parts, now) });
      }
    } finally {
      following.end();
    }
  };
}

/** What happens to one job, kept from the moment somebody wants to know. */
class Following {
  readonly #signal: AbortSignal;
  readonly #changes: StoredJob[] = [];
  readonly #ends: readonly (() => void)[];
  #stepped = false;
  #waits = false;
  #removed = false;
  #wake = () => {};

  constructor({ index, steps, waits }: Pick<RpcParts, 'index' | 'steps' | 'waits'>, key: string, signal: AbortSignal) {
    this.#signal = signal;
    const wake = () => this.#wake();
    const forget = index.watch(key, (what) => {
      if (what.kind === 'removed') this.#removed = true;
      else if (what.job) this.#changes.push({ job: what.job, revision: what.entry.revision });
      wake();
    });
    const unsubscribe = steps.onStep(key, () => {
      this.#stepped = true;
      wake();
    });
    const waitNow = () => {
      const entry = index.get(key);
      return entry && waits.of(entry);
    };
    let wait = waitNow();
    const unlisten = waits.onChange(() => {
      const before = wait;
      wait = waitNow();
      if (wait === before) return;
      this.#waits = true;
      wake();
    });
    signal.addEventListener('abort', wake);
    this.#ends = [forget, unsubscribe, unlisten, () => signal.removeEventListener('abort', wake)];
  }

  /** What comes after this revision. Throws the signal's reason. */
  async next(revision: number): Promise<StoredJob | 'stepped' | 'waits' | 'removed'> {
    for (;;) {
      this.#signal.throwIfAborted();
      const change = this.#changes.shift();
      if (change && change.revision <= revision) continue; // it was read already
      if (change) return change;
      if (this.#removed) return 'removed';
      if (this.#stepped) {
        this.#stepped = false;
        return 'stepped';
      }
      if (this.#waits) {
        this.#waits = false;
        return 'waits';
      }
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  end(): void {
    for (const end of this.#ends) end();
  }
}

function fromTheFuture(asked: bigint, newest: number): StatusError {
  const { details, message } = badRequest([
    { field: 'from_revision', description: `expected at most ${newest}, the newest, got ${asked}` },
  ]);
  return new StatusError({ code: Code.OUT_OF_RANGE, reason: Reason.BAD_REQUEST, message, ...details });
}
