import { mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { Code, Reason, StatusError } from '#core';
import { ManualClock } from '../../../test/support/manual-clock.js';
import { UNTOLD } from '../domain/job.js';
import { addressRule } from './addresses.js';
import type { WebhookEvent } from './events.js';
import { WebhookBook } from './webhook-book.js';
import { parseWebhookFile } from './webhook-file.js';
import { WebhookSource } from './webhook-source.js';

const secret = `whsec_${Buffer.alloc(24, 'SECRET').toString('base64')}`;
const other = `whsec_${Buffer.alloc(64, 'OTHER').toString('base64')}`;
const isAllowed = addressRule(undefined);

let dir = '';
let file = '';
beforeEach(async () => {
  dir = await mkdtemp(path.join(tmpdir(), 'dmesh-webhooks-'));
  file = path.join(dir, 'webhooks.json');
});
afterEach(() => rm(dir, { recursive: true, force: true }));

test.each([
  ['nonsense', 'expected JSON'],
  ['[]', 'the file: expected an object'],
  [{ tenant: {} }, 'the file: expected the fields tenants, default, got "tenant"'],
  [{ tenants: [] }, 'tenants: expected an object'],
  [{ tenants: { acme: null } }, 'tenants.acme: expected an object'],
  [{ tenants: { acme: {} } }, 'tenants.acme.secret: expected whsec_ and 24 to 64 bytes in base64'],
  [{ tenants: { acme: { secret: 'SECRET' } } }, 'tenants.acme.secret'],
  [{ tenants: { acme: { secret: `whsec_${Buffer.alloc(23, 'SECRET').toString('base64')}` } } }, 'tenants.acme.secret'],
  [{ tenants: { acme: { secret: `whsec_${Buffer.alloc(65, 'SECRET').toString('base64')}` } } }, 'tenants.acme.secret'],
  [{ tenants: { acme: { secret: `${secret}!` } } }, 'tenants.acme.secret'],
  [{ tenants: { acme: { secret: 7 } } }, 'tenants.acme.secret'],
  [{ tenants: { acme: { secret, url: 7 } } }, 'tenants.acme.url: expected text'],
  [{ tenants: { acme: { secret, url: 'http://10.0.0.1/' } } }, 'tenants.acme.url: expected a host that webhooks may go to'],
  [{ default: { secret, uri: '' } }, 'default: expected the fields secret, url, got "uri"'],
])('%j is refused: %s', (content, fault) => {
  const parsed = parseWebhookFile(typeof content === 'string' ? content : JSON.stringify(content), isAllowed);
  expect(parsed.ok ? [] : parsed.faults).toContainEqual(expect.stringContaining(fault));
  expect(JSON.stringify(parsed)).not.toMatch(/SECRET|U0VDUkVU/);
});

test('every fault is named at once, up to a number', () => {
  const tenants = Object.fromEntries(Array.from({ length: 50 }, (_, n) => [`t${n}`, {}]));
  const parsed = parseWebhookFile(JSON.stringify({ tenants }), isAllowed);
  expect(parsed.ok ? [] : parsed.faults).toHaveLength(21);
});

function bookOf(content: object): WebhookBook {
  const book = new WebhookBook(isAllowed);
  const parsed = parseWebhookFile(JSON.stringify(content), isAllowed);
  book.replace(parsed.ok ? parsed.settings : expect.fail(parsed.faults.join()));
  return book;
}
function refusal(call: () => unknown): StatusError {
  try {
    call();
  } catch (error) {
    if (error instanceof StatusError) return error;
  }
  return expect.fail('not refused');
}

test("webhookFor() takes the job's own URL, else the tenant's, else the default's", () => {
  const book = bookOf({ tenants: { acme: { secret, url: 'https://acme.example/hook' }, mute: { secret } }, default: { secret: other } });
  expect(book.webhookFor('acme', '')).toEqual({ url: 'https://acme.example/hook', ...UNTOLD });
  expect(book.webhookFor('acme', 'https://EXAMPLE.com/x#y')).toEqual({ url: 'https://example.com/x', ...UNTOLD });
  expect(book.webhookFor('mute', '')).toBeUndefined();
  expect(book.webhookFor('nobody', '')).toBeUndefined();
  expect(book.webhookFor('nobody', 'https://example.com/')?.url).toBe('https://example.com/');
  expect(book.signerFor('acme')).not.toEqual(book.signerFor('nobody'));
  expect(bookOf({ default: { secret, url: 'https://all.example/' } }).webhookFor('acme', '')?.url).toBe('https://all.example/');
});

test('webhookFor() refuses what could never be told', () => {
  const book = bookOf({ tenants: { acme: { secret } } });
  const code = Code.INVALID_ARGUMENT;
  const reason = Reason.WEBHOOK_REFUSED;
  expect(refusal(() => book.webhookFor('other', 'https://example.com/'))).toMatchObject({ code, reason });
  expect(refusal(() => book.webhookFor('other', 'https://example.com/')).message).toContain('no secret');
  const { details, ...error } = refusal(() => book.webhookFor('acme', 'http://127.1:8080/'));
  expect(error).toMatchObject({ code, reason });
  expect(details.violations).toEqual([
    { field: 'options.webhook_url', description: 'expected a host that webhooks may go to, got 127.0.0.1' },
  ]);
  expect(new WebhookBook(isAllowed).webhookFor('acme', '')).toBeUndefined();
});

test('a changed file is followed; a broken one is reported and the last good one holds', async () => {
  const replaceFile = async (text: string) => {
    await writeFile(`${file}.new`, text);
    await rename(`${file}.new`, file);
  };
  const clock = new ManualClock();
  const events: WebhookEvent[] = [];
  const book = new WebhookBook(isAllowed);
  const source = new WebhookSource({
    path: file,
    isAllowed,
    clock,
    emit: (event) => events.push(event),
    onSettings: (settings) => book.replace(settings),
  });
  const url = () => book.webhookFor('acme', '')?.url;
  await replaceFile(JSON.stringify({ tenants: { acme: { secret, url: 'https://one.example/' } } }));
  await source.start();
  expect(url()).toBe('https://one.example/');
  await replaceFile(JSON.stringify({ tenants: { acme: { secret, url: 'https://two.example/' } } }));
  await expect.poll(url).toBe('https://two.example/');
  await replaceFile('{"tenants":');
  const last = async () => {
    await clock.advance(100);
    return events.at(-1);
  };
  await expect.poll(last).toEqual({ type: 'webhooksRejected', path: file, faults: [`${file}: expected JSON, got something else`] });
  expect(url()).toBe('https://two.example/');
  source.close();
  expect(clock.pendingCount).toBe(0);
});
