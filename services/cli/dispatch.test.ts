import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { admin, generation } from '#contracts';
import { badRequest, Code, Reason, StatusError } from '#core';
import { type HandlersOf, Server } from '#grpc';
import { systemClock } from '#runtime';
import { type RunOptions, runDmesh } from '../../test/support/run-dmesh.js';
import { ExitCode } from './command.js';

const Pictures = generation.ImageGenerationServiceService;
const Admin = admin.MeshAdminServiceService;

let dir = '';
const cleanups: (() => Promise<void> | void)[] = [];
beforeEach(async () => {
  dir = await mkdtemp(path.join(tmpdir(), 'dmesh-cli-'));
  cleanups.push(() => rm(dir, { recursive: true }));
});
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

type Handlers = HandlersOf<typeof Pictures> & HandlersOf<typeof Admin>;
async function router(handlers: Partial<Handlers>): Promise<string> {
  const server = new Server({ clock: systemClock, emit: () => {}, maxRequestBytes: 1024 * 1024 });
  const none = () => Promise.reject(new Error('not part of this test'));
  server.add(Pictures, { generate: none, generateStream: none, listModels: none, ...handlers } as HandlersOf<typeof Pictures>);
  server.add(Admin, { listNodes: none, watchMesh: none, drain: none, resume: none, ...handlers } as HandlersOf<typeof Admin>);
  cleanups.push(() => server.close());
  return `127.0.0.1:${await server.listen('127.0.0.1:0')}`;
}

function dmesh(
  args: readonly string[],
  { interactive = false, ...options }: Omit<RunOptions, 'terminal'> & { interactive?: boolean } = {},
) {
  return runDmesh(args, { ...options, terminal: { interactive } });
}

const draws: Partial<Handlers> = {
  generateStream: async ({ request }, out) => {
    const count = Math.max(1, request.imageCount);
    await out.write({ event: { $case: 'queued', value: { position: 3, etaMs: 1500 } } });
    await out.write({ event: { $case: 'started', value: { nodeId: 'node-1', attempt: 1, loadMs: 0 } } });
    await out.write({ event: { $case: 'step', value: { step: 4, total: 8, imageIndex: 0 } } });
    for (let index = 0; index < count; index++) {
      const data = Buffer.from(`picture ${index} of ${request.prompt} as ${request.format}`);
      const chunk = {
        imageIndex: index,
        data,
        offset: 0n,
        totalBytes: BigInt(data.length),
        mimeType: 'image/png',
        width: 128,
        height: 128,
      };
      await out.write({ event: { $case: 'image', value: { ...chunk, seed: (request.seed ?? 0n) + BigInt(index) } } });
    }
    const used = generation.UsedParameters.fromPartial({ model: 'tiny', seed: request.seed ?? 0n, steps: 8 });
    const timing = { nodeId: 'node-1', executingMs: 92.4, queuedMs: 12, attempts: 1 };
    await out.write({ event: { $case: 'completed', value: { requestId: request.requestId, used, imageCount: count, ...timing } } });
  },
};

test('generate saves the picture and says file, seed, node and times', async () => {
  const address = await router(draws);
  const file = path.join(dir, 'out.png');
  const ran = await dmesh(['generate', 'a red circle', '-o', file, '--seed', '7', '--router', address]);
  expect(ran).toEqual({ code: 0, err: '', out: `${file}  128×128  seed 7  drawn by node-1 in 92 ms, waited 12 ms\n` });
  expect(await readFile(file, 'utf8')).toContain('picture 0 of a red circle');
});

test('several pictures are numbered', async () => {
  const address = await router(draws);
  await dmesh(['generate', 'p', '-o', path.join(dir, 'out.png'), '--count', '2'], { env: { DMESH_ROUTER: address } });
  expect(await readdir(dir)).toEqual(['out-1.png', 'out-2.png']);
});

test('the file name asks for the format', async () => {
  const address = await router(draws);
  await dmesh(['generate', 'p', '-o', path.join(dir, 'out.webp'), '--router', address]);
  expect(await readFile(path.join(dir, 'out.webp'), 'utf8')).toContain(`as ${generation.ImageFormat.WEBP}`);
});

test('--json tells programs what people read', async () => {
  const address = await router(draws);
  const file = path.join(dir, 'out.png');
  const { out } = await dmesh(['generate', 'p', '-o', file, '--seed', '18446744073709551615', '--json', '--router', address]);
  expect(JSON.parse(out)).toMatchObject({
    files: [{ file, mimeType: 'image/png', width: 128, height: 128, seed: '18446744073709551615' }],
    nodeId: 'node-1',
    attempts: 1,
    queuedMs: 12,
    executingMs: 92.4,
    used: { model: 'tiny', steps: 8 },
  });
});

test('a terminal sees queue, steps and end in one line', async () => {
  const address = await router(draws);
  const { err } = await dmesh(['generate', 'p', '-o', path.join(dir, 'out.png'), '--router', address], { interactive: true });
  const shown = err.split('\r\u001b[K');
  expect(shown).toContain('in the queue at position 3, about 1.5 s');
  expect(shown).toContain('████████████░░░░░░░░░░░░ step 4 of 8 on node-1');
  expect(shown.at(-1)).toBe('');
});

const refusals: readonly (readonly [string, StatusError, number, RegExp])[] = [
  [
    'every faulty field, by the option that set it',
    badRequest([
      { field: 'width', description: 'expected 64 to 256, got 7' },
      { field: 'steps', description: 'expected 1 to 50, got 99' },
    ]),
    ExitCode.REFUSED,
    /--size \(width\): expected 64 to 256, got 7.*\n.*--steps: expected 1 to 50, got 99/,
  ],
  [
    'what exists instead',
    new StatusError({
      code: Code.NOT_FOUND,
      reason: Reason.UNKNOWN_MODEL,
      message: 'no model "x"',
      resource: { type: 'model', name: 'x', description: 'there is z-image-tiny' },
    }),
    ExitCode.REFUSED,
    /--model: no model "x".*\n.*there is z-image-tiny\n.*dmesh models/,
  ],
  [
    'the option that named a LoRA',
    new StatusError({ code: Code.NOT_FOUND, reason: Reason.UNKNOWN_LORA, message: 'expected one of pastel, got "x"' }),
    ExitCode.REFUSED,
    /error: --lora: expected one of pastel, got "x" .*\n.*dmesh models/,
  ],
  [
    'when to come back',
    new StatusError({ code: Code.RESOURCE_EXHAUSTED, reason: Reason.QUEUE_FULL, message: 'the queue is full', retryDelayMs: 600_000 }),
    ExitCode.UNAVAILABLE,
    /the queue is full.*\n.*600 s/,
  ],
  [
    'a fault of the mesh',
    new StatusError({ code: Code.INTERNAL, reason: Reason.NAN_OUTPUT, message: 'not a number' }),
    ExitCode.FAILED,
    /INTERNAL\/NAN_OUTPUT/,
  ],
];
test.each(refusals)('a refusal shows %s', async (_, error, code, text) => {
  const address = await router({ generateStream: () => Promise.reject(error) });
  const ran = await dmesh(['generate', 'p', '--router', address]);
  expect(ran.code).toBe(code);
  expect(ran.err).toMatch(text);
});

test('nobody there: says how to start a mesh', async () => {
  const ran = await dmesh(['models', '--router', '127.0.0.1:1']);
  expect(ran.code).toBe(ExitCode.UNAVAILABLE);
  expect(ran.err).toContain('error: no connection to 127.0.0.1:1: connection refused (UNAVAILABLE/CONNECT_FAILED)\n');
  expect(ran.err).toContain('dmesh up');
});

test('too little time is said in one sentence', async () => {
  const address = await router({ generateStream: () => new Promise(() => {}) });
  const ran = await dmesh(['generate', 'p', '--timeout', '1ms', '--router', address]);
  expect(ran.code).toBe(ExitCode.UNAVAILABLE);
  expect(ran.err).toMatch(/^error: no answer from \S+ within 1 ms \(DEADLINE_EXCEEDED\/DEADLINE\)\n {2}try: .*--timeout\n$/);
});

test.each<[args: string[], says: RegExp]>([
  [['-o', ''], /--out: expected a file name, got the folder ""\n {2}try: --out a-cat\.png\n/],
  [['-o', 'DIR'], /--out: expected a file name, got the folder ".*"\n {2}try: --out \/.*\/a-cat\.png\n/],
  [['-o', 'DIR/none/', '--format', 'jpeg'], /got the folder ".*none\/"\n {2}try: --out .*none\/a-cat\.jpg\n/],
  [['-o', 'DIR/x.gif'], /--out: expected a name that ends in \.png, .* got ".*x\.gif"\n {2}try: --out .*x\.png\n/],
  [['-o', 'DIR/x.jpg', '--format', 'png'], /--format: expected jpeg, as --out ".*x\.jpg" says, got "png"\n {2}try: one of the two/],
  [['-o', 'DIR/file/x.png'], /--out: expected a file that can be written, got ".*": .*file is no folder/],
])('what cannot be saved as asked is not drawn: %j', async (options, says) => {
  await writeFile(path.join(dir, 'file'), '');
  const args = options.map((text) => text.replace('DIR', dir));
  const ran = await dmesh(['generate', 'a cat', ...args, '--router', '127.0.0.1:1']);
  expect(ran.code).toBe(ExitCode.USAGE);
  expect(ran.err).toMatch(says);
});

test('missing folders are made; an older file is replaced, and that is said', async () => {
  const address = await router(draws);
  const file = path.join(dir, 'a/b/out.JPEG');
  const args = ['generate', 'a cat', '-o', file, '--format', 'jpeg', '--router', address];
  expect((await dmesh(args)).out).not.toContain('older');
  expect((await dmesh(args)).out).toContain('in place of an older file');
  expect(await readFile(file, 'utf8')).toContain(`as ${generation.ImageFormat.JPEG}`);
});

test.each([
  [['generate'], /expected a "PROMPT" in quotes, got nothing/],
  [['generate', 'two', 'words'], /expected no more than .*, got "words"/],
  [['generate', 'p', '--size', '128'], /--size: expected WIDTHxHEIGHT such as 128x128, got "128"/],
  [['generate', 'p', '--lora', '=1'], /--lora: expected NAME or NAME=STRENGTH/],
  [['generate', 'p', '--steps', 'x', '--seed', '1.5'], /--seed: .*\n.*--steps: /],
  [['generate', 'p', '--seed', '18446744073709551616'], /--seed: expected a whole number below 2\^64/],
  [['generate', 'p', '--seed', '-1', '--count', '-2'], /--seed: expected a whole number below 2\^64, got "-1"\n.*--count: .* got "-2"/],
  [['generate', 'p', '--seed', '--json'], /--seed: expected a value, got another option/],
  [['generate', 'p', '--out'], /--out: expected a value, got nothing/],
  [['generate', 'p', '--json=x'], /--json/],
  [['generate', 'p', '--timeout', '60'], /--timeout: expected a duration/],
  [['generate', 'p', '--format', 'gif'], /--format: expected one of png, jpeg, webp, got "gif"/],
  [['generate', 'p', '--router', 'nowhere'], /--router: expected host:port, got "nowhere"/],
  [['generate', 'p', '--colour', 'red'], /Unknown option '--colour'/],
  [['drain'], /expected the name of a NODE, got nothing/],
  [['paint'], /expected a command such as generate, .*, got "paint"/],
  [['help', 'paint'], /got "paint"/],
  [['up', '--nodes', '-3'], /--nodes: expected a whole number from 0 to 256, got "-3"/],
])('%j is a usage error', async (args, text) => {
  const ran = await dmesh(args);
  expect(ran.code).toBe(ExitCode.USAGE);
  expect(ran.err).toMatch(text);
});

test('up says so when its port is taken, before it starts anything', async () => {
  const port = (await router({})).split(':')[1] ?? '';
  const ran = await dmesh(['up', '--router-port', port]);
  expect(ran.code).toBe(ExitCode.USAGE);
  expect(ran.err).toContain(`${port} is taken`);
});

test('an empty DMESH_ROUTER is an error, not the default', async () => {
  const ran = await dmesh(['models'], { env: { DMESH_ROUTER: '' } });
  expect(ran.code).toBe(ExitCode.USAGE);
  expect(ran.err).toContain('DMESH_ROUTER: expected host:port, got ""');
});

test.each(['generate', 'models', 'nodes', 'top', 'routes', 'drain', 'resume', 'up', 'demo', 'version'])(
  '%s --help shows its usage',
  async (name) => {
    const ran = await dmesh([name, '--help']);
    expect(ran).toMatchObject({ code: 0, err: '' });
    expect(ran.out).toContain(`dmesh ${name}`);
  },
);

test('help lists every command and the exit codes', async () => {
  const { code, out } = await dmesh([]);
  expect(code).toBe(0);
  for (const name of ['generate', 'nodes', 'up', 'demo', 'Exit codes']) expect(out).toContain(name);
});

test('models shows what each option may be', async () => {
  const limits = {
    ...{ sizeMultiple: 16, minWidth: 64, maxWidth: 256, minHeight: 64, maxHeight: 192, minSteps: 1, maxSteps: 50 },
    ...{ minGuidanceScale: 0.5, maxGuidanceScale: 7.1, maxImageCount: 4, maxPromptTokens: 77 },
    ...{ maxLoras: 2, minLoraStrength: -0.1, maxLoraStrength: 2 },
  };
  const defaults = { width: 128, height: 96, steps: 8, guidanceScale: 4.5 };
  const loras = [{ name: 'neon', description: 'It glows.' }, { name: 'ink' }];
  const model = { name: 'tiny', revision: 'r1', defaults, limits, languages: ['en', 'zh'], loras, nodes: 3 };
  const address = await router({ listModels: async () => generation.ListModelsResponse.fromPartial({ models: [model] }) });
  const { out } = await dmesh(['models', '--router', address]);
  expect(out).toBe(`tiny  revision r1, served by 3 nodes
  prompt      at most 77 tokens; languages: en, zh
  --negative  not taken
  --size      default 128x96, from 64x64 to 256x192 in multiples of 16
  --steps     default 8, from 1 to 50
  --guidance  default 4.5, from 0.5 to 7.1
  --count     default 1, at most 4
  --lora      at most 2, each with a strength from -0.1 to 2; default 1
              neon: It glows.
              ink
`);
  expect(JSON.parse((await dmesh(['models', '--json', '--router', address])).out)).toMatchObject([{ name: 'tiny', nodes: 3 }]);
});

const alive = {
  nodeId: 'node-2',
  liveness: admin.Liveness.ALIVE,
  breaker: admin.BreakerState.CLOSED,
  connected: true,
  engine: 'onnx',
  engineState: 'ready',
  slotCount: 1,
};

test('nodes shows who is well and who is not, in natural order', async () => {
  const gone = { ...alive, nodeId: 'node-10', liveness: admin.Liveness.GONE, breaker: admin.BreakerState.OPEN };
  const slow = { ...alive, nodeId: 'node-3', breaker: admin.BreakerState.HALF_OPEN, breakerCause: 'tooSlow' };
  const address = await router({ listNodes: async () => admin.ListNodesResponse.fromPartial({ nodes: [gone, slow, alive] }) });
  const { out } = await dmesh(['nodes', '--router', address]);
  expect(out).toMatch(/node-2 +alive +closed +onnx ready +0\/1[^\n]*\nnode-3 +alive +quarantine [^\n]*\nnode-10 +gone +open/);
});

test('nodes --watch shows every change until Ctrl-C', async () => {
  const stop = new AbortController();
  const address = await router({
    watchMesh: async (call, out) => {
      await out.write(admin.MeshSnapshot.fromPartial({ nodes: [alive], queuedCount: 4, membershipFrozen: true }));
      await out.write(admin.MeshSnapshot.fromPartial({ nodes: [{ ...alive, draining: true }], runningCount: 1 }));
      await new Promise((_, reject) => call.signal.addEventListener('abort', () => reject(call.signal.reason)));
    },
  });
  const onOut = (out: string) => out.includes('draining') && stop.abort();
  const ran = await dmesh(['nodes', '--watch', '--router', address], { signal: stop.signal, onOut });
  expect(ran.code).toBe(0);
  expect(ran.out).toMatch(/4 queued, 0 running {2}NATS is silent.*node-2 +alive.*0 queued, 1 running.*node-2 +draining/s);
});

test('drain and resume say what became of the node', async () => {
  const address = await router({ drain: async () => ({}), resume: async () => ({}) });
  expect(await dmesh(['drain', 'node-1', '--router', address])).toEqual({ code: 0, out: 'node-1 drains\n', err: '' });
  expect(await dmesh(['resume', 'node-1', '--router', address])).toEqual({ code: 0, out: 'node-1 works again\n', err: '' });
});

test('Ctrl-C ends a picture in work with 130', async () => {
  const stop = new AbortController();
  const address = await router({
    generateStream: (call) =>
      new Promise((_, reject) => {
        call.signal.addEventListener('abort', () => reject(call.signal.reason));
        stop.abort();
      }),
  });
  expect(await dmesh(['generate', 'p', '--router', address], { signal: stop.signal })).toMatchObject({
    code: ExitCode.INTERRUPTED,
    err: 'interrupted\n',
  });
});

test('a token is made, shown once, listed without its secret, and revoked; only its owner may read the file', async () => {
  const file = path.join(dir, 'tokens.json');
  const added = await dmesh([
    'token',
    'add',
    '--file',
    file,
    '--tenant',
    'acme',
    '--rate',
    '2',
    '--max-priority',
    'high',
    '--model',
    'tiny',
  ]);
  expect(added).toMatchObject({ code: ExitCode.OK, out: expect.stringMatching(/^dm_[0-9a-f]{12}_[\w-]{32}\n$/) });
  const [, id = '', secret = ''] = /^dm_([^_]+)_(.+)$/.exec(added.out.trim()) ?? [];
  await dmesh(['token', 'add', '--file', file, '--tenant', 'acme', '--admin']);
  await dmesh(['token', 'add', '--file', file, '--tenant', 'acme', '--burst', '20', '--acts-for-all']);
  expect((await stat(file)).mode & 0o777).toBe(0o600);
  expect(await readFile(file, 'utf8')).not.toContain(secret);
  expect(await readdir(dir)).toEqual(['tokens.json']);
  const listed = await dmesh(['token', 'list', '--file', file, '--json']);
  const common = { tenant: 'acme', ratePerSec: 2, burst: 20 };
  expect(JSON.parse(listed.out)).toMatchObject([
    { id, ...common, maxPriority: 'high', models: ['tiny'], admin: false },
    { ...common, maxPriority: 'normal', admin: true },
    { ...common, admin: false, actsFor: true },
  ]);
  expect(listed.out).not.toContain('scrypt');
  expect((await dmesh(['token', 'list', '--file', file])).out).toContain(id);
  expect(await dmesh(['token', 'revoke', id, '--file', file])).toMatchObject({ code: ExitCode.OK });
  expect(await dmesh(['token', 'revoke', id, '--file', file])).toMatchObject({
    code: ExitCode.USAGE,
    err: expect.stringMatching(new RegExp(`^error: .*"${id}"\n.*try: "dmesh token list"`)),
  });
  expect(JSON.parse((await dmesh(['token', 'list', '--file', file, '--json'])).out)).toHaveLength(2);
});

test.each([
  [['token'], '--file: expected'],
  [['token', 'eat', '--file', 'f'], 'expected add, list or revoke, got "eat"'],
  [['token', 'add', '--file', 'f', '--rate', '0', '--max-priority', 'now'], '--tenant: expected'],
  [['token', 'add', '--file', 'f', '--tenant', 't', '--burst', '-1'], '--burst'],
  [['token', 'revoke', '--file', 'f'], 'expected the ID of a token'],
  [['models', '--token', 'two words'], '--token: expected a token'],
])('%j is a wrong command line', async (args, fault) => {
  expect(await dmesh(args)).toMatchObject({ code: ExitCode.USAGE, err: expect.stringContaining(fault) });
});

test('changes at the same time take turns, and none is lost; a lock somebody left is named', async () => {
  const file = path.join(dir, 'tokens.json');
  const tenants = ['one', 'two', 'three', 'four'];
  await Promise.all(tenants.map((tenant) => dmesh(['token', 'add', '--file', file, '--tenant', tenant])));
  const listed: { tenant: string }[] = JSON.parse((await dmesh(['token', 'list', '--file', file, '--json'])).out);
  expect(listed.map(({ tenant }) => tenant).sort()).toEqual([...tenants].sort());
  expect(await readdir(dir)).toEqual(['tokens.json']);
  await writeFile(`${file}.lock`, '');
  const late = await dmesh(['token', 'revoke', 'x', '--file', file]);
  expect(late).toMatchObject({ code: ExitCode.FAILED, err: expect.stringContaining(`${file}.lock: expected nobody`) });
});

test('a mesh of TLS is named by --ca, or DMESH_TLS_CA; what cannot be used is told before anything is sent', async () => {
  const missing = path.join(dir, 'ca.pem');
  const refused = { code: ExitCode.USAGE, err: expect.stringContaining(`${missing}: expected a readable file, got ENOENT`) };
  expect(await dmesh(['models', '--ca', missing])).toMatchObject(refused);
  expect(await dmesh(['nodes'], { env: { DMESH_TLS_CA: missing } })).toMatchObject(refused);
  const half = await dmesh(['top', '--once', '--cert', 'c.pem', '--key', 'c.key']);
  expect(half).toMatchObject({ code: ExitCode.USAGE, err: expect.stringContaining('--ca: expected the CA of the mesh') });
});

test('a token file that routers would refuse is not written, and a broken one is left as it is', async () => {
  const file = path.join(dir, 'tokens.json');
  expect(await dmesh(['token', 'add', '--file', file, '--tenant', 'anonymous'])).toMatchObject({
    code: ExitCode.FAILED,
    err: expect.stringContaining('[0].tenant'),
  });
  await writeFile(file, 'broken');
  expect((await dmesh(['token', 'add', '--file', file, '--tenant', 'acme'])).code).toBe(ExitCode.FAILED);
  expect(await readFile(file, 'utf8')).toBe('broken');
  expect((await dmesh(['token', 'list', '--file', path.join(dir, 'none')])).err).toContain('ENOENT');
});

test('--token and DMESH_TOKEN say who asks, the option first', async () => {
  const seen: (string | undefined)[] = [];
  const address = await router({
    listModels: async (call) => {
      seen.push(call.metadata.authorization);
      return { models: [] };
    },
  });
  const env = { DMESH_ROUTER: address, DMESH_TOKEN: 'dm_a_1' };
  await dmesh(['models'], { env });
  await dmesh(['models', '--token', 'dm_b_2'], { env });
  await dmesh(['models', '--router', address]);
  expect(seen).toEqual(['Bearer dm_a_1', 'Bearer dm_b_2', undefined]);
});
