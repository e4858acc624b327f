/**
 * May this become a job, and what exactly is it then? Every fault is named at once, in a batch with its index; the
 * model is named and the seed fixed, so that whatever draws it, and however often, draws the same picture.
 *
 * Judged by the models that the mesh serves now. While none is known, what is well-formed is accepted: that no node is
 * there yet is no fault of the caller's.
 */
import { defaultPriority, permit, type Token } from '#access';
import { generation, type jobs, priorityName } from '#contracts';
import { badRequest, Code, type Random, Reason, StatusError, type Violation } from '#core';
import { MAX_PROMPT_BYTES, type ModelInfo, resolveRequest } from '#model-package';
import type { Priority } from '#scheduling';
import type { Job, Webhook } from './domain/job.js';
import { isJobId, JOB_ID_RULE } from './domain/record.js';

export interface Caller {
  readonly tenant: string;
  /** Undefined in an open mesh. */
  readonly token: Token | undefined;
}

export interface AdmissionOptions {
  readonly random: Random;
  readonly wallNow: () => number;
  /** By name; empty while none are known. */
  readonly models: () => Promise<ReadonlyMap<string, ModelInfo>>;
  /** Throws WEBHOOK_REFUSED for one that could never be told (webhook/webhook-book.ts). */
  readonly webhookFor: (tenant: string, url: string) => Webhook | undefined;
  readonly expireAfterMs: number;
  readonly maxExpireAfterMs: number;
}

export interface Submission {
  readonly caller: Caller;
  readonly options: jobs.JobOptions | undefined;
}

interface Judged {
  readonly request: generation.GenerateRequest;
  readonly priority: Priority;
  readonly violations: readonly Violation[];
  /** Of these, what is not there rather than wrong. */
  readonly missing: Missing | undefined;
}

interface Missing {
  readonly type: 'model' | 'lora';
  readonly name: string;
  readonly description: string;
}

export const MAX_BATCH_SIZE = 1000;
const MIN_EXPIRE_MS = 1000;
const MAX_LORAS = 100;
/** Of a model or LoRA: what waits is kept in every replica's memory. */
const MAX_NAME_LENGTH = 128;
const NO_REQUEST: Violation = { field: 'request', description: 'expected one, got none' };

export class Admission {
  readonly #options: AdmissionOptions;

  constructor(options: AdmissionOptions) {
    this.#options = options;
  }

  /** Throws INVALID_ARGUMENT with every violation, NOT_FOUND for a model or LoRA, FORBIDDEN. */
  async admit(submission: Submission, jobId: string, request: generation.GenerateRequest | undefined): Promise<Job> {
    const judged = judge(request, await this.#options.models(), submission.caller);
    const faults = [...idFaults('job_id', jobId), ...this.#optionFaults(submission.options), ...judged.violations];
    if (faults.length === 1 && judged.missing) throw notThere(judged.missing);
    return this.#make(submission, faults, [{ jobId: jobId || this.madeUpId('j'), batchId: '', judged }])[0] as Job;
  }

  /** As `admit`, for all of a batch. */
  async admitBatch(submission: Submission, batchId: string, items: readonly jobs.BatchItem[]): Promise<readonly Job[]> {
    const models = await this.#options.models();
    const ids = items.map(({ jobId }, index) => jobId || `${batchId}-${index}`);
    const judged = items.map(({ request }) => judge(request, models, submission.caller));
    const faults = [
      ...batchFaults(batchId, ids, items),
      ...this.#optionFaults(submission.options),
      ...judged.flatMap(({ violations }, index) => violations.map((one) => ({ ...one, field: `items[${index}].${one.field}` }))),
    ];
    return this.#make(
      submission,
      faults,
      judged.map((one, index) => ({ jobId: ids[index] ?? '', batchId, judged: one })),
    );
  }

  /** Of a job, what this request says of it: to be compared with one that was accepted. */
  asAsked(request: generation.GenerateRequest, { token }: Pick<Caller, 'token'>): Pick<Job, 'priority' | 'request'> {
    const priority = priorityName(request.priority) ?? defaultPriority(token, 'low');
    return { priority, request: { ...request, priority: generation.Priority.UNSPECIFIED } };
  }

  /** Of a job or batch whose submitter gave none. */
  madeUpId(letter: 'j' | 'b'): string {
    return `${letter}-${this.#chance()}${this.#chance()}`;
  }

  #make(
    { caller, options }: Submission,
    faults: readonly Violation[],
    items: readonly { readonly jobId: string; readonly batchId: string; readonly judged: Judged }[],
  ): Job[] {
    const webhook = this.#webhook(caller.tenant, options?.webhookUrl ?? '', faults);
    const { expireAfterMs, random, wallNow } = this.#options;
    const submittedAtMs = wallNow();
    const expiresAtMs = submittedAtMs + Number(options?.expireAfterMs ?? expireAfterMs);
    return items.map(({ jobId, batchId, judged: { priority, request } }) => {
      permit(caller.token, { model: request.model, priority });
      return {
        uid: `${this.#chance()}${this.#chance()}${this.#chance()}${this.#chance()}`,
        tenant: caller.tenant,
        jobId,
        batchId,
        request: {
          ...request,
          priority: generation.Priority.UNSPECIFIED,
          seed: request.seed ?? BigInt(Math.floor(random() * 2 ** 32)), // what torch's CPU generator reads of a seed
        },
        priority,
        submittedAtMs,
        expiresAtMs,
        round: 1,
        attempt: 0,
        failedAttempts: 0,
        state: { kind: 'queued', notBeforeMs: 0 },
        webhook,
      };
    });
  }

  /** Throws all faults, its own with them. */
  #webhook(tenant: string, url: string, faults: readonly Violation[]): Webhook | undefined {
    try {
      const webhook = this.#options.webhookFor(tenant, url);
      if (faults.length > 0) throw badRequest(faults);
      return webhook;
    } catch (thrown) {
      const own = thrown instanceof StatusError && thrown.reason === Reason.WEBHOOK_REFUSED ? (thrown.details.violations ?? []) : [];
      throw own.length > 0 && faults.length > 0 ? badRequest([...own, ...faults]) : thrown;
    }
  }

  #optionFaults(options: jobs.JobOptions | undefined): Violation[] {
    const { maxExpireAfterMs } = this.#options;
    const ms = options?.expireAfterMs;
    if (ms === undefined || (ms >= MIN_EXPIRE_MS && ms <= maxExpireAfterMs)) return [];
    return [{ field: 'options.expire_after_ms', description: `expected ${MIN_EXPIRE_MS} to ${maxExpireAfterMs}, got ${ms}` }];
  }

  #chance(): string {
    return Math.floor(this.#options.random() * 2 ** 32)
      .toString(36)
      .padStart(7, '0');
  }
}

function judge(request: generation.GenerateRequest | undefined, models: ReadonlyMap<string, ModelInfo>, { token }: Caller): Judged {
  const priority = (request && priorityName(request.priority)) ?? defaultPriority(token, 'low');
  if (!request) return { request: generation.GenerateRequest.fromPartial({}), priority, violations: [NO_REQUEST], missing: undefined };
  const [only] = models.size === 1 ? models.values() : [];
  const info = request.model === '' ? only : models.get(request.model);
  const idFault = request.requestId === '' ? [] : [{ field: 'request_id', description: 'expected none: a job has its own, job_id' }];
  const named = { ...request, model: request.model || (info?.name ?? '') };
  const missing = info ? undefined : missingModel(request.model, models);
  const found = info ? judgeFor(request, info) : { violations: shapeFaults(request), missing };
  const missingFault = found.missing
    ? [{ field: found.missing.type === 'lora' ? 'loras' : 'model', description: found.missing.description }]
    : [];
  const violations = [...idFault, ...found.violations, ...missingFault].map((one) => ({ ...one, field: `request.${one.field}` }));
  return { request: named, priority, violations, missing: found.missing };
}

function judgeFor(request: generation.GenerateRequest, info: ModelInfo): Pick<Judged, 'violations' | 'missing'> {
  const resolution = resolveRequest({ ...request, requestId: '' }, info);
  if (resolution.ok) return { violations: [], missing: undefined };
  const { unknownLoras, violations } = resolution;
  const known = info.loras.map((lora) => lora.name).join(', ') || 'none';
  const description = `expected one of ${known}, got ${unknownLoras.join(', ')}`;
  return { violations, missing: unknownLoras.length === 0 ? undefined : { type: 'lora', name: unknownLoras.join(', '), description } };
}

/** Undefined while no model is known. */
function missingModel(name: string, models: ReadonlyMap<string, ModelInfo>): Missing | undefined {
  if (models.size === 0) return undefined;
  const shown = name.slice(0, 128);
  const description = `expected one of the models ${[...models.keys()].sort().join(', ')}, got ${name === '' ? 'none' : JSON.stringify(shown)}`;
  return { type: 'model', name: shown, description };
}

/** What is wrong whatever the model is. */
function shapeFaults({ format, loras, model, negativePrompt, priority, prompt }: generation.GenerateRequest): Violation[] {
  const promptBytes = Buffer.byteLength(prompt);
  const negativeBytes = Buffer.byteLength(negativePrompt);
  const faults: Violation[] = [];
  const expect = (isRight: boolean, field: string, description: string) => void (isRight || faults.push({ field, description }));
  expect(promptBytes >= 1 && promptBytes <= MAX_PROMPT_BYTES, 'prompt', `expected 1 to ${MAX_PROMPT_BYTES} bytes, got ${promptBytes}`);
  expect(negativeBytes <= MAX_PROMPT_BYTES, 'negative_prompt', `expected at most ${MAX_PROMPT_BYTES} bytes, got ${negativeBytes}`);
  const expectName = ({ length }: string, field: string) =>
    expect(length <= MAX_NAME_LENGTH, field, `expected at most ${MAX_NAME_LENGTH} characters, got ${length}`);
  expectName(model, 'model');
  expect(loras.length <= MAX_LORAS, 'loras', `expected at most ${MAX_LORAS}, got ${loras.length}`);
  for (const [at, { name }] of loras.slice(0, MAX_LORAS).entries()) expectName(name, `loras[${at}].name`);
  expect(generation.ImageFormat[format] !== undefined && format >= 0, 'format', `expected PNG, JPEG or WEBP, got ${format}`);
  expect(generation.Priority[priority] !== undefined && priority >= 0, 'priority', `expected HIGH, NORMAL or LOW, got ${priority}`);
  return faults;
}

function idFaults(field: string, id: string): Violation[] {
  return id === '' || isJobId(id) ? [] : [{ field, description: `expected ${JOB_ID_RULE}, got ${JSON.stringify(id.slice(0, 140))}` }];
}

function batchFaults(batchId: string, ids: readonly string[], items: readonly jobs.BatchItem[]): Violation[] {
  const faults = idFaults('batch_id', batchId);
  const seen = new Map<string, number>();
  for (const [index, id] of ids.entries()) {
    const field = `items[${index}].job_id`;
    const before = seen.get(id);
    seen.set(id, before ?? index);
    if (before !== undefined) faults.push({ field, description: `expected each id once, got that of items[${before}]` });
    else if (items[index]?.jobId !== '') faults.push(...idFaults(field, id));
    else if (faults.length === 0 && !isJobId(id)) {
      faults.push({ field: 'batch_id', description: `expected room for -${index} within 64, as items[${index}] has no job_id of its own` });
    }
  }
  return faults;
}

function notThere({ description, name, type }: Missing): StatusError {
  return new StatusError({
    code: Code.NOT_FOUND,
    reason: type === 'model' ? Reason.UNKNOWN_MODEL : Reason.UNKNOWN_LORA,
    message: description,
    resource: { type, name, description },
  });
}
