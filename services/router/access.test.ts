import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { afterEach, expect, test } from 'vitest';
import { DEFAULT_LIMITS, hashSecret, makeToken, type Token } from '#access';
import { admin, generation } from '#contracts';
import { type Clock, Code, Reason, StatusError } from '#core';
import { type CallEnded, Channel, type HandlersOf, Server } from '#grpc';
import { systemClock } from '#runtime';
import { FAKE_MODEL, FakeNode } from '../../test/support/fake-node.js';
import { ManualClock } from '../../test/support/manual-clock.js';
import { CONFIG, cleanUp, cleanups, joined } from '../../test/support/router-world.js';
import { Access } from './access.js';
import { AuditLog } from './audit-log.js';
import type { RouterEvent } from './events.js';
import { LEVERS } from './rpc/admin.js';
import { createRouter } from './service.js';

const Pictures = generation.ImageGenerationServiceService;
const Admin = admin.MeshAdminServiceService;
const { HIGH, LOW } = generation.Priority;
afterEach(cleanUp);

async function issue(fields: Partial<Token> = {}): Promise<{ text: string; token: Token }> {
  const made = makeToken();
  const hash = await hashSecret(made.secret, { ln: 10, r: 8, p: 1 });
  const defaults = { ...DEFAULT_LIMITS, maxPriority: 'normal', models: undefined, admin: false, actsFor: false } as const;
  return { text: made.text, token: { id: made.id, tenant: 'acme', hash, ...defaults, ...fields } };
}

/** A router behind its door. Its accounts follow `accountClock`, everything else real time. */
async function start(options: { tokens?: readonly Token[]; anonymousRatePerSec?: number; accountClock?: Clock; node?: FakeNode } = {}) {
  const { tokens, anonymousRatePerSec = 0, node = new FakeNode('n1') } = options;
  const events: RouterEvent[] = [];
  const emit = (event: { type: string }) => void events.push(event as RouterEvent);
  const clock = options.accountClock ?? systemClock;
  const access = new Access({ clock, emit, needsToken: tokens !== undefined, anonymousRatePerSec });
  access.replace(tokens ?? []);
  await node.start();
  const router = createRouter({
    config: { ...CONFIG, cacheBytes: 1 << 20 },
    clock: systemClock,
    random: Math.random,
    emit,
    access,
    evidence: () => {},
  });
  router.fleet.follow(joined(node));
  const callsEnded: CallEnded[] = [];
  const server = new Server({ clock: systemClock, emit: (event) => void callsEnded.push(event), maxRequestBytes: 1 << 20 });
  server.add(Pictures, router.handlers);
  const none = () => Promise.reject(new Error('not part of this test'));
  const levers = {
    ...Object.fromEntries(Object.keys(Admin).map((name) => [name, none])),
    listNodes: async () => ({ nodes: [] }),
    drain: async () => ({}),
  };
  server.add(Admin, access.adminOnly(levers as unknown as HandlersOf<typeof Admin>, LEVERS));
  const channel = new Channel(`127.0.0.1:${await server.listen('127.0.0.1:0')}`, { clock: systemClock });
  cleanups.push(
    () => node.stop(),
    () => router.close(),
    () => server.close(),
    () => channel.close(),
  );
  const as = (text?: string) => (text === undefined ? {} : { metadata: { authorization: `Bearer ${text}` } });
  const generate = (text?: string, fields: Partial<generation.GenerateRequest> = {}) =>
    channel.unary(Pictures.generate, generation.GenerateRequest.fromPartial({ prompt: 'a red circle', ...fields }), as(text));
  const ended = () => events.flatMap((event) => (event.type === 'requestEnded' ? [event] : []));
  return { access, callsEnded, channel, events, generate, node, as, ended, router };
}

const failure = (call: Promise<unknown>) =>
  call.then(
    () => undefined,
    (thrown: unknown) => StatusError.from(thrown),
  );

test('no token and a wrong one are refused alike, on every method, and reach no node', async () => {
  const { text, token } = await issue();
  const { channel, node, ended } = await start({ tokens: [token] });
  const wrong = text.slice(0, -1) + (text.endsWith('x') ? 'y' : 'x');
  const shown = [
    undefined,
    '',
    'Bearer',
    `Bearer ${wrong}`,
    `Bearer dm_nobody_${'s'.repeat(32)}`,
    `Basic ${text}`,
    text,
    `Bearer  ${'x'.repeat(3000)}`,
  ];
  const errors: (StatusError | undefined)[] = [];
  for (const authorization of shown) {
    const options = authorization === undefined ? {} : { metadata: { authorization } };
    const request = generation.GenerateRequest.fromPartial({ prompt: 'x' });
    errors.push(await failure(channel.unary(Pictures.generate, request, options)));
    errors.push(await failure(channel.serverStream(Pictures.generateStream, request, options)[Symbol.asyncIterator]().next()));
    errors.push(await failure(channel.unary(Pictures.listModels, {}, options)));
    errors.push(await failure(channel.unary(Admin.listNodes, {}, options)));
  }
  expect(new Set(errors.map((error) => error?.message)).size).toBe(1);
  for (const error of errors) expect(error).toMatchObject({ code: Code.UNAUTHENTICATED, reason: Reason.UNAUTHENTICATED });
  expect(node.started).toEqual([]);
  expect(ended()).toEqual([]);
});

test('a token opens pictures, unary and streamed, and its tenant goes with the request', async () => {
  const { text, token } = await issue();
  const { channel, generate, node, as, ended } = await start({ tokens: [token] });
  let tenant: string | undefined;
  node.draw = async (call) => {
    tenant = call.metadata['x-mesh-tenant'];
    expect(call.metadata.authorization).toBeUndefined();
  };
  await generate(text, { requestId: 'r1', imageCount: 2 });
  expect(tenant).toBe('acme');
  const request = generation.GenerateRequest.fromPartial({ prompt: 'x', requestId: 'r2' });
  for await (const _ of channel.serverStream(Pictures.generateStream, request, as(text))) {
    // read to its end
  }
  await expect(channel.unary(Pictures.listModels, {}, as(text))).resolves.toBeDefined();
  const common = { tenant: 'acme', model: 'fake', nodeId: 'n1', code: Code.OK, gpuMs: 5 };
  await expect.poll(ended).toMatchObject([
    { ...common, requestId: 'r1', imageCount: 2 },
    { ...common, requestId: 'r2', imageCount: 1 },
  ]);
});

test('priority, models and the levers of an operator are the token’s to allow', async () => {
  const [usual, urgent, low, one, operator] = await Promise.all([
    issue(),
    issue({ tenant: 'urgent', maxPriority: 'high' }),
    issue({ tenant: 'low', maxPriority: 'low' }),
    issue({ tenant: 'one', models: ['other'] }),
    issue({ tenant: 'operator', admin: true }),
  ]);
  const { channel, generate, as, node } = await start({ tokens: [usual, urgent, low, one, operator].map(({ token }) => token) });
  const forbidden = { code: Code.PERMISSION_DENIED, reason: Reason.FORBIDDEN };
  await expect(generate(usual.text, { priority: HIGH })).rejects.toMatchObject(forbidden);
  const inHeader = { metadata: { ...as(usual.text).metadata, 'x-priority': 'high' } };
  const request = generation.GenerateRequest.fromPartial({ prompt: 'x' });
  await expect(channel.unary(Pictures.generate, request, inHeader)).rejects.toMatchObject(forbidden);
  await generate(usual.text, { priority: LOW });
  await generate(urgent.text, { priority: HIGH });
  let priority: string | undefined;
  node.draw = async (call) => {
    priority = call.metadata['x-mesh-priority'];
  };
  await generate(low.text);
  expect(priority).toBe('low'); // who asks for nothing gets what it may have
  await expect(generate(low.text, { priority: generation.Priority.NORMAL })).rejects.toMatchObject(forbidden);
  await expect(generate(one.text)).rejects.toMatchObject({ ...forbidden, message: expect.stringContaining('other') });
  await expect(generate(one.text, { model: FAKE_MODEL.name })).rejects.toMatchObject(forbidden);
  await expect(channel.unary(Admin.listNodes, {}, as(usual.text))).rejects.toMatchObject(forbidden);
  await expect(channel.unary(Admin.listNodes, {}, as(operator.text))).resolves.toMatchObject({ response: { nodes: [] } });
});

test('over its rate a tenant is told its limit and when to come back; others are not touched; all its tokens count', async () => {
  const clock = new ManualClock();
  const limits = { ratePerSec: 2, burst: 3 };
  const [first, second, other] = await Promise.all([issue(limits), issue(limits), issue({ tenant: 'other' })]);
  const { generate } = await start({ tokens: [first.token, second.token, other.token], accountClock: clock });
  await generate(first.text);
  await generate(second.text);
  await generate(first.text);
  await expect(generate(second.text)).rejects.toMatchObject({
    code: Code.RESOURCE_EXHAUSTED,
    reason: Reason.RATE_LIMITED,
    details: { retryDelayMs: 500, quota: { subject: 'tenant acme', description: '2 requests a second, 3 at once' } },
  });
  await generate(other.text);
  await clock.advance(500);
  await generate(first.text);
});

test('GPU time: charged as predicted, corrected by what it took; what was joined, cached or never began is free', async () => {
  const clock = new ManualClock();
  const { text, token } = await issue({ ratePerSec: 1000, burst: 1000, gpuSecondsPerMinute: 0.006 });
  const { generate, node, ended } = await start({ tokens: [token], accountClock: clock });
  let release = () => {};
  const held = new Promise<void>((resolve) => {
    release = resolve;
  });
  node.draw = () => held;
  const one = generate(text, { seed: 1n, requestId: 'one' });
  await expect.poll(() => node.started.length).toBe(1);
  // The prediction of what runs is far more than 6 ms.
  await expect(generate(text, { seed: 1n, requestId: 'joined' })).rejects.toMatchObject({
    reason: Reason.RATE_LIMITED,
    details: { quota: { description: '0.006 GPU-seconds a minute' } },
  });
  release();
  await one; // 5 of its 6 ms
  await generate(text, { seed: 1n, requestId: 'kept' });
  await expect(generate(text, { width: 7 })).rejects.toMatchObject({ reason: Reason.BAD_REQUEST });
  await generate(text, { seed: 2n, requestId: 'two' });
  await expect(generate(text, { seed: 3n })).rejects.toMatchObject({ reason: Reason.RATE_LIMITED });
  const used = ended().map(({ requestId, gpuMs, imageCount, reason }) => [requestId, gpuMs, imageCount, reason]);
  expect(used).toContainEqual(['one', 5, 1, 'OK']);
  expect(used).toContainEqual(['kept', 0, 1, 'OK']);
  expect(used).toContainEqual(['joined', 0, 0, Reason.RATE_LIMITED]);
});

test('who began a picture may leave: it is in one record with its GPU time, however many have joined', async () => {
  const { text, token } = await issue();
  const { channel, generate, node, as, ended } = await start({ tokens: [token] });
  let release = () => {};
  const held = new Promise<void>((resolve) => {
    release = resolve;
  });
  node.draw = () => held;
  const leaving = new AbortController();
  const request = generation.GenerateRequest.fromPartial({ prompt: 'a red circle', seed: 1n, requestId: 'began' });
  const first = failure(channel.unary(Pictures.generate, request, { ...as(text), signal: leaving.signal }));
  await expect.poll(() => node.started).toEqual(['began']);
  const second = generate(text, { seed: 1n, requestId: 'joined' });
  await channel.unary(Pictures.listModels, {}, as(text)); // came later over the same connection: the second has joined
  leaving.abort();
  expect(await first).toMatchObject({ code: Code.CANCELLED });
  release();
  await second;
  const records = () => ended().map(({ requestId, code, gpuMs, imageCount }) => [requestId, code, gpuMs, imageCount]);
  await expect
    .poll(() => records().sort())
    .toEqual([
      ['began', Code.CANCELLED, 5, 0],
      ['joined', Code.OK, 0, 1],
    ]);
});

test('a token that acts for others names the tenant, who pays; its rate is not touched, and others name nobody', async () => {
  const clock = new ManualClock();
  const gpuSecondsPerMinute = 0.006;
  const [jobs, acme, globex] = await Promise.all([
    issue({ tenant: 'jobs', actsFor: true, maxPriority: 'low' }),
    issue({ ratePerSec: 1, burst: 1, gpuSecondsPerMinute }),
    issue({ tenant: 'globex' }),
  ]);
  const { channel, generate, as, node, ended, callsEnded } = await start({
    tokens: [jobs, acme, globex].map(({ token }) => token),
    accountClock: clock,
  });
  const tenants: (string | undefined)[] = [];
  node.draw = async (call) => void tenants.push(call.metadata['x-mesh-tenant']);
  const ask = (text: string, tenant: string, fields: Partial<generation.GenerateRequest> = {}) =>
    channel.unary(Pictures.generate, generation.GenerateRequest.fromPartial({ prompt: 'a red circle', ...fields }), {
      metadata: { ...as(text).metadata, 'x-mesh-tenant': tenant },
    });
  await ask(jobs.text, 'acme');
  await ask(jobs.text, 'acme');
  await expect(ask(jobs.text, 'acme')).rejects.toMatchObject({
    reason: Reason.RATE_LIMITED,
    details: { quota: { subject: 'tenant acme', description: '0.006 GPU-seconds a minute' } },
  });
  await expect(generate(acme.text)).rejects.toMatchObject({ details: { quota: { description: '0.006 GPU-seconds a minute' } } });
  await ask(globex.text, 'acme');
  await generate(jobs.text);
  await ask(jobs.text, 'unheard-of');
  expect(tenants).toEqual(['acme', 'acme', 'globex', 'jobs', 'unheard-of']);
  await expect(ask(jobs.text, 'acme', { priority: HIGH })).rejects.toMatchObject({ reason: Reason.FORBIDDEN });
  await expect(ask(jobs.text, 'a b')).rejects.toMatchObject({ reason: Reason.BAD_REQUEST });
  expect(ended()[0]).toMatchObject({ tenant: 'acme', tokenId: jobs.token.id, gpuMs: 5 });
  expect(callsEnded[0]?.notes).toMatchObject({ tenant: 'acme', token_id: jobs.token.id });
});

test('in an open mesh nobody acts for anybody', async () => {
  const { channel, ended } = await start();
  const request = generation.GenerateRequest.fromPartial({ prompt: 'a red circle' });
  await channel.unary(Pictures.generate, request, { metadata: { 'x-mesh-tenant': 'acme' } });
  expect(ended()).toMatchObject([{ tenant: 'anonymous' }]);
});

test('what another router gave the tenant counts here', async () => {
  const clock = new ManualClock();
  const { text, token } = await issue({ ratePerSec: 1, burst: 3 });
  const { access, generate } = await start({ tokens: [token], accountClock: clock });
  const served = { tenant: 'acme', priority: 'normal', costMs: 100 } as const;
  for (let i = 0; i < 2; i++) access.served({ ...served, actedFor: true });
  await generate(text);
  for (let i = 0; i < 2; i++) access.served({ ...served, actedFor: false });
  access.served({ ...served, tenant: 'nobody', actedFor: false });
  await expect(generate(text)).rejects.toMatchObject({ reason: Reason.RATE_LIMITED, details: { retryDelayMs: 1000 } });
});

test('an open mesh: everybody is one tenant, may ask for HIGH and use the levers; a rate holds by address where it is set', async () => {
  const open = await start();
  await open.generate(undefined, { priority: HIGH });
  await open.generate('dm_some_thing_not_looked_at');
  await open.channel.unary(Admin.listNodes, {});
  expect(open.ended().map(({ tenant }) => tenant)).toEqual(['anonymous', 'anonymous']);
  const limited = await start({ anonymousRatePerSec: 1, accountClock: new ManualClock() });
  await limited.generate();
  await limited.generate();
  await expect(limited.generate()).rejects.toMatchObject({ reason: Reason.RATE_LIMITED, details: { quota: { subject: 'your address' } } });
});

test('a token that is revoked is refused from the next call on, one that is added is let in', async () => {
  const [old, fresh] = await Promise.all([issue(), issue({ tenant: 'fresh' })]);
  const { access, generate } = await start({ tokens: [old.token] });
  await generate(old.text);
  access.replace([fresh.token]);
  await expect(generate(old.text)).rejects.toMatchObject({ reason: Reason.UNAUTHENTICATED });
  await generate(fresh.text);
});

test('who pulled a lever, or wanted to, is told, and so is on what; a look is no lever', async () => {
  const [operator, tenant] = await Promise.all([issue({ tenant: 'ops', admin: true }), issue()]);
  const { channel, as, events, callsEnded } = await start({ tokens: [operator.token, tenant.token] });
  await failure(channel.unary(Admin.drain, { nodeId: 'n1' }, as(operator.text)));
  await failure(channel.unary(Admin.resume, { nodeId: 'n1' }, as(tenant.text)));
  const routes = [{ name: 'a', targets: [{ model: 'm', revision: '3', weight: 2 }] }];
  await failure(channel.unary(Admin.setRoutes, { routes, expectedRevision: 0n, force: false }, as(tenant.text)));
  await failure(channel.unary(Admin.drain, { nodeId: 'n1' }));
  await channel.unary(Admin.listNodes, {}, as(operator.text));
  const acme = { tenant: 'acme', tokenId: tenant.token.id, reason: Reason.FORBIDDEN };
  expect(events.filter(({ type }) => type === 'leverPulled')).toMatchObject([
    { lever: 'drain', tenant: 'ops', tokenId: operator.token.id, subject: { node_id: 'n1' }, code: Code.OK },
    { lever: 'resume', ...acme, subject: { node_id: 'n1' } },
    { lever: 'setRoutes', ...acme, subject: { routes: 'a -> m@3:2' } },
  ]);
  expect(callsEnded.map(({ notes }) => notes)).toEqual([
    { node_id: 'n1', tenant: 'ops', token_id: operator.token.id },
    { node_id: 'n1', tenant: 'acme', token_id: tenant.token.id },
    { routes: 'a -> m@3:2', tenant: 'acme', token_id: tenant.token.id },
    { node_id: 'n1' },
    { tenant: 'ops', token_id: operator.token.id },
  ]);
});

test('the audit log has one line for each request let in, none for those over their rate, and a lost disk is counted', async () => {
  const dir = await mkdtemp(path.join(tmpdir(), 'dmesh-audit-'));
  cleanups.push(() => rm(dir, { recursive: true }));
  const file = path.join(dir, 'audit.jsonl');
  const events: RouterEvent[] = [];
  const ended = {
    type: 'requestEnded',
    tenant: 'acme',
    tokenId: 't1',
    requestId: 'r"1\n',
    model: 'fake',
    nodeId: 'n1',
    code: Code.OK,
    reason: 'OK',
    gpuMs: 5.4,
    imageCount: 1,
    durationMs: 7,
  } as const;
  const log = new AuditLog({ path: file, clock: systemClock, emit: (event) => events.push(event) });
  await log.start();
  for (let i = 0; i < 500; i++) log.note({ ...ended, requestId: `r${i}` });
  log.note({ ...ended, reason: Reason.RATE_LIMITED });
  const order = { type: 'leverPulled', lever: 'drain', tenant: 'ops', tokenId: 't2', peer: '127.0.0.1:9' } as const;
  log.note({ ...order, subject: { node_id: 'n1' }, code: Code.OK, reason: 'OK', durationMs: 3 });
  log.note(ended);
  await log.close();
  const lines = (await readFile(file, 'utf8'))
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));
  expect(lines).toHaveLength(502);
  expect(lines.at(-2)).toMatchObject({ lever: 'drain', tenant: 'ops', token: 't2', peer: '127.0.0.1:9', node_id: 'n1', code: 'OK' });
  const line = {
    request_id: 'r"1\n',
    tenant: 'acme',
    token: 't1',
    model: 'fake',
    node: 'n1',
    code: 'OK',
    reason: 'OK',
    gpu_ms: 5,
    images: 1,
  };
  expect(lines.at(-1)).toMatchObject({ ...line, duration_ms: 7, time: expect.stringMatching(/^\d{4}-\d\d-\d\dT/) });

  const lost = new AuditLog({ path: path.join(dir, 'no/such/folder'), clock: systemClock, emit: (event) => events.push(event) });
  await expect(lost.start()).rejects.toMatchObject({
    name: 'ConfigError',
    faults: [expect.stringMatching(/^DMESH_ROUTER_AUDIT_LOG: .*ENOENT/)],
  });
  lost.note(ended);
  await lost.close();
  expect(events).toMatchObject([{ type: 'auditLost', lineCount: 1 }]);
});

test.each([
  ['a pipe that nobody reads', (file: string) => promisify(execFile)('mkfifo', [file]), 'a pipe or a socket'],
  ['a device', (file: string) => symlink('/dev/full', file), 'a device'],
])('%s in the place of the audit log is a wrong setting, and later costs lines, not the end of the router', async (_, make, kind) => {
  const dir = await mkdtemp(path.join(tmpdir(), 'dmesh-audit-'));
  cleanups.push(() => rm(dir, { recursive: true }));
  const file = path.join(dir, 'audit.jsonl');
  const events: RouterEvent[] = [];
  const log = new AuditLog({ path: file, clock: systemClock, emit: (event) => events.push(event) });
  await make(file);
  await expect(log.start()).rejects.toMatchObject({ name: 'ConfigError', faults: [expect.stringContaining(`got ${kind} for`)] });
  const order = { type: 'leverPulled', lever: 'drain', tenant: 'ops', tokenId: 't2', peer: '127.0.0.1:9' } as const;
  log.note({ ...order, subject: { node_id: 'n1' }, code: Code.OK, reason: 'OK', durationMs: 3 });
  await log.close();
  expect(events).toMatchObject([{ type: 'auditLost', lineCount: 1 }]);
});
