import { mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { ManualClock } from '../../test/support/manual-clock.js';
import type { AccessEvent } from './events.js';
import { hashSecret } from './secret-hash.js';
import type { Token } from './token.js';
import { formatTokenFile, parseTokenFile } from './token-file.js';
import { TokenSource } from './token-source.js';

let dir = '';
let file = '';
let source: TokenSource | undefined;
const hash = await hashSecret('secret', { ln: 10, r: 8, p: 1 });
beforeEach(async () => {
  dir = await mkdtemp(path.join(tmpdir(), 'dmesh-tokens-'));
  file = path.join(dir, 'tokens.json');
});
afterEach(async () => {
  source?.close();
  await rm(dir, { recursive: true });
});

const entry = (fields: object = {}) => ({ id: 'a1', tenant: 'acme', hash, ...fields });
const list = (...entries: unknown[]) => JSON.stringify(entries);

test('what is left out takes the default, and a file written is the file read', () => {
  const parsed = parseTokenFile(list(entry()));
  if (!parsed.ok) throw new Error(parsed.faults.join());
  expect(parsed.tokens).toEqual([
    {
      id: 'a1',
      tenant: 'acme',
      hash,
      maxPriority: 'normal',
      ratePerSec: 5,
      burst: 10,
      gpuSecondsPerMinute: undefined,
      models: undefined,
      admin: false,
      actsFor: false,
    },
  ]);
  expect(parseTokenFile(formatTokenFile(parsed.tokens))).toEqual(parsed);
});

test.each([
  ['', 'expected JSON'],
  ['[{"hash": "SECRET', 'expected JSON, got something else'],
  ['{}', 'expected a list of tokens'],
  ['null', 'expected a list of tokens'],
  ['[null]', '[0]: expected an object'],
  [list([]), '[0]: expected an object'],
  [list({}), '[0].id: expected'],
  [list(entry({ id: 'a_1' })), '[0].id'],
  [list(entry({ tenant: 'anonymous' })), '[0].tenant'],
  [list(entry({ tenant: 'a b' })), '[0].tenant'],
  [list(entry({ hash: 'plain text' })), '[0].hash'],
  [list(entry({ hash: hash.replace('ln=10', 'ln=40') })), '[0].hash'],
  [list(entry({ maxPriority: 'urgent' })), '[0].maxPriority: expected one of high, normal, low'],
  [list(entry({ ratePerSec: 0 })), '[0].ratePerSec'],
  [list(entry({ ratePerSec: '5' })), '[0].ratePerSec'],
  [list(entry({ burst: 1e9 })), '[0].burst'],
  [list(entry({ gpuSecondsPerMinute: -1 })), '[0].gpuSecondsPerMinute'],
  [list(entry({ models: 'all' })), '[0].models'],
  [list(entry({ admin: 'yes' })), '[0].admin'],
  [list(entry({ ratePersec: 5 })), 'got "ratePersec"'],
  [list(entry(), entry()), '[1].id: expected each once'],
  [list(entry(), entry({ id: 'a2', burst: 20 })), '[1].burst: expected the same for all tokens of acme'],
])('%s is refused: %s', (text, fault) => {
  const parsed = parseTokenFile(text);
  expect(parsed.ok ? [] : parsed.faults).toContainEqual(expect.stringContaining(fault));
  expect(JSON.stringify(parsed)).not.toContain('SECRET');
});

test('every fault is named at once, up to a number', () => {
  const parsed = parseTokenFile(list(...Array.from({ length: 50 }, () => entry({ burst: 0, admin: 1 }))));
  expect(parsed.ok ? [] : parsed.faults).toHaveLength(21);
});

function follow(clock = new ManualClock()) {
  const events: AccessEvent[] = [];
  let tokens: readonly Token[] = [];
  const take = (next: readonly Token[]) => {
    tokens = next;
  };
  source = new TokenSource({ path: file, clock, emit: (event) => events.push(event), onTokens: take });
  const ids = () => tokens.map(({ id }) => id);
  return { source, clock, events, ids, types: () => events.map(({ type }) => type) };
}

async function replaceFile(text: string): Promise<void> {
  await writeFile(`${file}.new`, text);
  await rename(`${file}.new`, file);
}

test('a changed file is followed; a broken one is reported once and the last good one holds', async () => {
  await replaceFile(list(entry()));
  const { source, clock, events, ids, types } = follow();
  await source.start();
  expect(ids()).toEqual(['a1']);
  await replaceFile(list(entry(), entry({ id: 'a2' })));
  await expect.poll(ids).toEqual(['a1', 'a2']);
  await writeFile(file, '[{"id":');
  const later = async () => {
    await clock.advance(100);
    return events.at(-1);
  };
  await expect.poll(later).toMatchObject({ type: 'tokensRejected' });
  await clock.advance(10_000);
  expect(ids()).toEqual(['a1', 'a2']);
  await rm(file);
  expect(types().filter((type) => type === 'tokensRejected')).toHaveLength(1);
  await expect.poll(later).toMatchObject({ type: 'tokensRejected', faults: [`${file}: expected a readable file, got ENOENT`] });
  expect(ids()).toEqual(['a1', 'a2']);
  await replaceFile(list(entry({ id: 'a3' })));
  await expect.poll(ids).toEqual(['a3']);
});

test('a file that is being written in place is not reported', async () => {
  await replaceFile(list(entry()));
  const { source, clock, ids, types } = follow();
  await source.start();
  for (const text of ['', '[', '[{"id":', list(entry({ id: 'a2' }))]) {
    await writeFile(file, text);
    await clock.advance(50);
  }
  await expect.poll(ids).toEqual(['a2']);
  await clock.advance(1000);
  expect(types()).not.toContain('tokensRejected');
});

test('without news from the file system the file is looked at every two seconds', async () => {
  await replaceFile(list(entry()));
  const real = path.join(dir, 'elsewhere');
  // Its folder is not the one that is watched.
  await rm(file);
  const { mkdir, symlink } = await import('node:fs/promises');
  await mkdir(real);
  await writeFile(path.join(real, 'tokens.json'), list(entry()));
  await symlink(path.join(real, 'tokens.json'), file);
  const { source, clock, ids } = follow();
  await source.start();
  await writeFile(path.join(real, 'tokens.json'), list(entry(), entry({ id: 'a2' })));
  await clock.advance(1999);
  expect(ids()).toEqual(['a1']);
  await clock.advance(1);
  await expect.poll(ids).toEqual(['a1', 'a2']);
  source.close();
  expect(clock.pendingCount).toBe(0);
});

test.each([
  ['no file', undefined, 'ENOENT'],
  ['a broken file', 'nonsense', 'expected JSON'],
])('%s at the start is an error', async (_, text, fault) => {
  if (text !== undefined) await writeFile(file, text);
  const { source } = follow();
  await expect(source.start()).rejects.toThrow(fault);
});
