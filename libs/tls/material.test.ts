import { readFile, writeFile } from 'node:fs/promises';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { type DevCa, makeDevCa } from '../../test/support/dev-ca.js';
import { systemClock } from '../runtime/index.js';
import { clientTlsFromFiles } from './client-files.js';
import type { TlsEvent } from './events.js';
import { checkMaterial } from './material.js';
import { TlsSource } from './tls-source.js';

let ca: DevCa;
const pems = new Map<string, Buffer>();
beforeAll(async () => {
  ca = await makeDevCa();
  for (const name of ['router.pem', 'router.key', 'node.key', 'mesh-ca.pem', 'caller-ca.pem'])
    pems.set(name, await readFile(ca.file(name)));
});
afterAll(() => ca.drop());

const pem = (name: string) => pems.get(name) ?? Buffer.alloc(0);
const PATHS = { cert: 'c', key: 'k', ca: 'a' };
const whole = () => ({ cert: pem('router.pem'), key: pem('router.key'), ca: pem('mesh-ca.pem') });

test('what fits is taken, with the moment the first certificate of each file expires', () => {
  const bundle = Buffer.concat([pem('mesh-ca.pem'), pem('caller-ca.pem')]);
  const checked = checkMaterial(PATHS, { ...whole(), ca: bundle });
  if (!checked.ok) throw new Error(checked.faults.join());
  const [cert, authority] = checked.expiries;
  expect([cert?.file, authority?.file]).toEqual(['cert', 'ca']);
  expect(authority?.atEpochMs).toBeGreaterThan(cert?.atEpochMs ?? Number.POSITIVE_INFINITY);
});

test.each([
  ['no certificate', () => ({ cert: Buffer.from('hello') }), ['c: expected certificates in PEM form']],
  ['half a certificate', () => ({ cert: pem('router.pem').subarray(0, 300) }), ['c: expected certificates in PEM form']],
  [
    'a chain cut off',
    () => ({ cert: Buffer.concat([pem('router.pem'), pem('mesh-ca.pem').subarray(0, 99)]) }),
    ['c: expected certificates'],
  ],
  [
    'garbage in PEM',
    () => ({ ca: Buffer.from('-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n') }),
    ['a: expected certificates'],
  ],
  ['an empty CA file', () => ({ ca: Buffer.alloc(0) }), ['a: expected certificates']],
  ["another's key", () => ({ key: pem('node.key') }), ['k: expected the key of c, got another one']],
  ['no key', () => ({ key: pem('router.pem') }), ['k: expected a private key in PEM form']],
  ['two faults', () => ({ cert: Buffer.alloc(3), ca: Buffer.alloc(3) }), ['c: expected', 'a: expected']],
])('%s is refused, by the name of its file', (_, change, faults) => {
  const checked = checkMaterial(PATHS, { ...whole(), ...change() });
  expect(checked.ok ? [] : checked.faults).toEqual(faults.map((fault) => expect.stringContaining(fault)));
  expect(JSON.stringify(checked)).not.toContain('PRIVATE');
});

const DAY_MS = 86_400_000;

test('a certificate is refused before and after its time; of CAs one that is good is enough', () => {
  const now = Date.now();
  const faultsAt = (epochMs: number, change = {}) => {
    const checked = checkMaterial(PATHS, { ...whole(), ...change }, epochMs);
    return checked.ok ? [] : checked.faults;
  };
  expect(faultsAt(now + 300 * DAY_MS)).toEqual([]);
  expect(faultsAt(now + 400 * DAY_MS)).toEqual([
    expect.stringMatching(/^c: expected a certificate that is good now, got one that expired on /),
  ]);
  const early = expect.stringContaining('got one that begins on');
  expect(faultsAt(now - 2 * DAY_MS)).toEqual([early, early]);
  const chain = Buffer.concat([pem('router.pem'), pem('mesh-ca.pem')]);
  expect(faultsAt(now + 400 * DAY_MS, { cert: chain })).toHaveLength(1);
  expect(faultsAt(now + 400 * DAY_MS, { cert: chain, ca: chain })).toEqual([expect.stringMatching(/^c: /)]);
});

test('an expired certificate does not take the place of a good one, nor does a service start with it; it is good when its time comes', async () => {
  vi.useFakeTimers({ toFake: ['Date'] });
  try {
    const events: TlsEvent[] = [];
    const names = ['router.pem', 'router.key'];
    const [cert, key] = names.map((name) => ca.file(`timely-${name}`));
    const put = () => Promise.all(names.map((name) => writeFile(ca.file(`timely-${name}`), pem(name))));
    const make = () => new TlsSource({ paths: { cert, key }, clock: systemClock, emit: (event) => events.push(event) });
    await put();
    const source = make();
    await source.start();
    try {
      const today = Date.now();
      vi.setSystemTime(today + 400 * DAY_MS);
      await expect(make().start()).rejects.toMatchObject({ name: 'ConfigError', faults: [expect.stringContaining('expired on')] });
      await put();
      await expect.poll(() => events.map(({ type }) => type), { timeout: 8000 }).toEqual(['tlsLoaded', 'tlsRejected']);
      expect(source.server(undefined).material().cert.equals(pem('router.pem'))).toBe(true);
      vi.setSystemTime(today);
      await expect.poll(() => events.map(({ type }) => type), { timeout: 8000 }).toEqual(['tlsLoaded', 'tlsRejected', 'tlsLoaded']);
    } finally {
      source.close();
    }
  } finally {
    vi.useRealTimers();
  }
});

test('a service does not start with files that cannot be used, and every missing one is named', async () => {
  const source = new TlsSource({ paths: { cert: ca.file('no.pem'), key: ca.file('no.key') }, clock: systemClock, emit: () => {} });
  await expect(source.start()).rejects.toMatchObject({
    name: 'ConfigError',
    faults: ['no.pem', 'no.key'].map((name) => `${ca.file(name)}: expected a readable file, got ENOENT`),
  });
});

test('a folder in the place of a file is named', async () => {
  const source = new TlsSource({ paths: { cert: ca.file('router.pem'), key: ca.file('') }, clock: systemClock, emit: () => {} });
  await expect(source.start()).rejects.toMatchObject({ faults: [`${ca.file('')}: expected a regular file, got a folder`] });
});

test('a caller is told at once which file cannot be used', async () => {
  expect(() => clientTlsFromFiles({ ca: ca.file('nowhere.pem') })).toThrow(
    `${ca.file('nowhere.pem')}: expected a readable file, got ENOENT`,
  );
  expect(() => clientTlsFromFiles({ ca: ca.file('mesh-ca.pem'), cert: ca.file('router.pem') })).toThrow('certificate and key together');
  await writeFile(ca.file('empty.pem'), '');
  expect(() => clientTlsFromFiles({ ca: ca.file('empty.pem') })).toThrow('expected certificates in PEM form');
});
