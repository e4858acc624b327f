/** Is this the same request as the one that was accepted under this id? What the first left open and the mesh fixed, the second may leave open too. */
import { createHash } from 'node:crypto';
import { generation } from '#contracts';
import type { Job } from './domain/job.js';

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

/** Of all requests of a batch as they came: equal for a repeated submission. */
export function digestOf(items: readonly { readonly jobId: string; readonly request?: generation.GenerateRequest | undefined }[]): string {
  const texts = items.map(({ jobId, request }) => [jobId, request && generation.GenerateRequest.toJSON(request)]);
  return createHash('sha256').update(JSON.stringify(texts)).digest('hex');
}

function fieldsOf({ priority, request }: Job): Record<string, unknown> {
  return { ...(generation.GenerateRequest.toJSON(request) as object), priority };
}

function asInContract(name: string): string {
  return `request.${name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)}`;
}
