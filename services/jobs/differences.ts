/** Is this the same request as the one that was accepted under this id? What the first left open and the mesh fixed, the second may leave open too. */
import { createHash } from 'node:crypto';
import { generation } from '#contracts';
import type { Job } from './domain/job.js';
import { receiverUrlOf } from './webhook/receiver-url.js';

interface Item {
  readonly jobId: string;
  readonly request?: generation.GenerateRequest | undefined;
}

/** Names of the fields of GenerateRequest that differ. */
export function differences(asked: Job, askedFor: Pick<generation.GenerateRequest, 'model' | 'seed'>, accepted: Job): string[] {
  const a = fieldsOf(asked);
  const b = fieldsOf(accepted);
  if (askedFor.model === '') delete a.model;
  if (askedFor.seed === undefined) delete a.seed;
  const names = new Set([...Object.keys(a), ...Object.keys(b)]);
  const isOpen = (name: string) => (name === 'model' && askedFor.model === '') || (name === 'seed' && askedFor.seed === undefined);
  return [...names].filter((name) => !isOpen(name) && JSON.stringify(a[name]) !== JSON.stringify(b[name])).map(asInContract);
}

/** Whether the job tells this receiver; without one it tells the tenant's own, which may be another by now. */
export function isWebhookOf({ webhook }: Job, askedUrl: string): boolean {
  return askedUrl === '' || webhook?.url === receiverUrlOf(askedUrl);
}

/** Of a batch as it came: equal for a repeated submission. */
export function digestOf(items: readonly Item[], webhookUrl: string): string {
  const texts = items.map(({ jobId, request }) => [jobId, request && generation.GenerateRequest.toJSON(request)]);
  return createHash('sha256')
    .update(JSON.stringify([texts, webhookUrl]))
    .digest('hex');
}

function fieldsOf({ priority, request }: Job): Record<string, unknown> {
  return { ...(generation.GenerateRequest.toJSON(request) as object), priority };
}

function asInContract(name: string): string {
  return `request.${name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)}`;
}
