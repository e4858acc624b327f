/** What NATS is shown: certificates, an nkey, a .creds file, against real servers that want them. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { nkeys } from 'nats';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { clientTlsFromFiles } from '#tls';
import { type DevCa, makeDevCa } from '../../test/support/dev-ca.js';
import { startNatsServer } from '../local-mesh/nats-server.js';
import { findNatsServer } from '../local-mesh/nats-server-find.js';
import { EnvReader, systemClock } from '../runtime/index.js';
import { type BusOptions, connectBus } from './bus.js';
import { readBusConfig } from './config.js';
import type { BusEvent } from './events.js';

let ca: DevCa;
let dir = '';
beforeAll(async () => {
  ca = await makeDevCa();
  dir = await mkdtemp(path.join(tmpdir(), 'dmesh-bus-'));
});
afterAll(() => Promise.all([ca.drop(), rm(dir, { recursive: true })]));

const cleanups: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function startNats(config: string): Promise<string> {
  const { path: program } = await findNatsServer({
    env: process.env,
    cacheDir: path.resolve(import.meta.dirname, '../../.cache'),
    log: () => {},
  });
  const file = path.join(dir, 'nats.conf');
  await writeFile(file, config);
  const server = await startNatsServer({ path: program, cwd: ca.dir, args: ['--config', file] });
  cleanups.push(() => server.stop());
  return server.url;
}

/** The first event: whether it came in, or why not. */
async function meet(options: Pick<BusOptions, 'url' | 'credentials' | 'tls'>): Promise<string> {
  const events: BusEvent[] = [];
  const bus = connectBus({ ...options, name: 'test', clock: systemClock, random: () => 0, emit: (event) => events.push(event) });
  cleanups.push(() => bus.close());
  await expect.poll(() => events.length, { timeout: 8000 }).toBeGreaterThan(0);
  const [first] = events;
  return first?.type === 'busConnectFailed' ? first.cause : (first?.type ?? '');
}

async function put(name: string, text: string): Promise<string> {
  const file = path.join(dir, name);
  await writeFile(file, text);
  return file;
}

const TLS = 'tls { cert_file: "nats.pem", key_file: "nats.key", ca_file: "mesh-ca.pem", verify: true }';

test('a server of TLS is believed for its CA and its name, and wants a certificate', async () => {
  const url = (await startNats(TLS)).replace('nats://', 'tls://');
  const trusted = { ca: ca.file('mesh-ca.pem') };
  const node = { cert: ca.file('node.pem'), key: ca.file('node.key') };
  expect(await meet({ url, tls: clientTlsFromFiles({ ...trusted, ...node }) })).toBe('busConnected');
  expect(await meet({ url, tls: { ...clientTlsFromFiles({ ...trusted, ...node }), serverName: 'elsewhere' } })).toContain(
    'its certificate is for another name',
  );
  expect(await meet({ url, tls: clientTlsFromFiles({ ca: ca.file('caller-ca.pem'), ...node }) })).toContain(
    'not of the CA that is trusted',
  );
  expect(await meet({ url })).toContain('not of the CA that is trusted');
  expect(await meet({ url, tls: clientTlsFromFiles(trusted) })).toMatch(/asks for a certificate|hung up/);
  expect(await meet({ url: url.replace('tls://', 'nats://') })).toContain('NATS_URL has to begin with tls://');
});

test('a plain server is not taken for one of TLS', async () => {
  const url = (await startNats('')).replace('nats://', 'tls://');
  expect(await meet({ url, tls: clientTlsFromFiles({ ca: ca.file('mesh-ca.pem') }) })).toBe('it does not speak TLS');
});

const seedOf = (pair: { getSeed(): Uint8Array }) => Buffer.from(pair.getSeed()).toString();

test('an nkey lets in, another one does not, and a file without one is named', async () => {
  const pair = nkeys.createUser();
  const url = await startNats(`authorization { users: [{ nkey: ${pair.getPublicKey()} }] }`);
  const file = async (name: string, text: string) => ({ kind: 'nkeyFile' as const, path: await put(name, text) });
  expect(await meet({ url, credentials: await file('good.nk', `${seedOf(pair)}\n`) })).toBe('busConnected');
  expect(await meet({ url, credentials: await file('other.nk', seedOf(nkeys.createUser())) })).toMatch(/authorization/i);
  expect(await meet({ url, credentials: await file('empty.nk', 'nothing') })).toContain("empty.nk: expected the seed of a user's nkey");
});

test('a .creds file lets in, and one that is missing is named', async () => {
  const [operator, account, user] = [nkeys.createOperator(), nkeys.createAccount(), nkeys.createUser()];
  const unlimited = { subs: -1, data: -1, payload: -1 };
  const limits = { ...unlimited, imports: -1, exports: -1, wildcards: true, conn: -1, leaf: -1 };
  const jwt = (by: typeof operator, of: typeof operator, nats: object) => {
    const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
    const claims = { jti: 'test', iat: 1, iss: by.getPublicKey(), sub: of.getPublicKey(), name: 'test', nats: { version: 2, ...nats } };
    const signed = `${part({ typ: 'JWT', alg: 'ed25519-nkey' })}.${part(claims)}`;
    return `${signed}.${Buffer.from(by.sign(Buffer.from(signed))).toString('base64url')}`;
  };
  const url = await startNats(
    `operator: ${jwt(operator, operator, { type: 'operator' })}
     resolver: MEMORY
     resolver_preload: { ${account.getPublicKey()}: ${jwt(operator, account, { type: 'account', limits })} }`,
  );
  const line = (what: string, text: string) => `-----BEGIN ${what}-----\n${text}\n------END ${what}------\n`;
  const creds = `${line('NATS USER JWT', jwt(account, user, { type: 'user', ...unlimited }))}\n${line('USER NKEY SEED', seedOf(user))}`;
  expect(await meet({ url, credentials: { kind: 'credsFile', path: await put('node.creds', creds) } })).toBe('busConnected');
  expect(await meet({ url, credentials: { kind: 'credsFile', path: path.join(dir, 'no.creds') } })).toContain('no.creds');
});

test.each([
  [{ NATS_CREDS: 'a.creds' }, { kind: 'credsFile', path: 'a.creds' }, undefined],
  [{ NATS_NKEY: 'a.nk' }, { kind: 'nkeyFile', path: 'a.nk' }, undefined],
  [{}, undefined, undefined],
  [{ NATS_CREDS: 'a.creds', NATS_NKEY: 'a.nk' }, undefined, 'expected one of'],
  [{ NATS_URL: 'nats://me:secret@a', NATS_NKEY: 'a.nk' }, undefined, 'expected one of'],
])('%j is read as one way to prove oneself, or refused', (env, credentials, fault) => {
  const read = new EnvReader(env, 'NATS_');
  const config = readBusConfig(read);
  if (fault === undefined) expect(read.done(config).credentials).toEqual(credentials);
  else expect(() => read.done(config)).toThrow(fault);
});
