/** dmesh submit and dmesh jobs as a tenant uses them: built programs, tokens, and processes that are killed meanwhile. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { expect, test } from 'vitest';
import { DEFAULT_LIMITS, formatTokenFile, hashSecret, makeToken, type Token } from '#access';
import { connectMesh, JobState, type MeshClient } from '#client';
import { generation } from '#contracts';
import { Code, Reason } from '#core';
import { packageRoot } from '#runtime';
import { useShared } from '../support/shared.js';
import { only, TestMesh } from '../support/test-mesh.js';

const MAIN = path.join(packageRoot, 'dist/services/cli/main.js');
const { LOW } = generation.Priority;
const PATIENCE = { timeout: 20_000, interval: 50 };

async function issue(tenant: string, fields: Partial<Token> = {}): Promise<{ text: string; token: Token }> {
  const made = makeToken();
  const defaults = { ...DEFAULT_LIMITS, maxPriority: 'normal', models: undefined, admin: false, actsFor: false } as const;
  return { text: made.text, token: { id: made.id, tenant, hash: await hashSecret(made.secret), ...defaults, ...fields } };
}

let dir = '';
let mesh: TestMesh;
let acme = '';
let globex = '';
useShared(
  async () => {
    dir = await mkdtemp(path.join(tmpdir(), 'dmesh-jobs-cli-'));
    const tokenFile = path.join(dir, 'tokens.json');
    const fast = { ratePerSec: 1000, burst: 1000 };
    const issued = await Promise.all([
      issue('operators', { ...fast, admin: true }),
      issue('jobs', { maxPriority: 'high', actsFor: true, ratePerSec: 0.001, burst: 1 }),
      issue('acme', fast),
      issue('globex', fast),
    ]);
    const [operator, jobs] = issued.map(({ text }) => text);
    [, , acme = '', globex = ''] = issued.map(({ text }) => text);
    await writeFile(tokenFile, formatTokenFile(issued.map(({ token }) => token)));
    mesh = await TestMesh.start({
      nodes: 2,
      jobsCount: 2,
      token: operator,
      env: {
        router: { DMESH_ROUTER_TOKEN_FILE: tokenFile },
        jobs: { DMESH_JOBS_TOKEN_FILE: tokenFile, DMESH_JOBS_ROUTER_TOKEN: jobs },
        node: { SCRIPT_STEP: '20ms' },
      },
    });
  },
  async () => {
    for (const client of clients.values()) client.close();
    clients.clear();
    await mesh?.stop();
    await rm(dir, { recursive: true, force: true });
  },
);

function start(args: readonly string[]): ChildProcess {
  return spawn(process.execPath, [MAIN, ...args], {
    cwd: dir,
    env: { ...process.env, DMESH_ROUTER: mesh.local.address, DMESH_TOKEN: acme },
  });
}

async function dmesh(args: readonly string[]): Promise<{ code: number | null; out: string; err: string }> {
  const child = start(args);
  let out = '';
  let err = '';
  child.stdout?.on('data', (chunk) => {
    out += chunk;
  });
  child.stderr?.on('data', (chunk) => {
    err += chunk;
  });
  const [code] = await once(child, 'close');
  return { code, out, err };
}

const clients = new Map<string, MeshClient>();
/** A client with this token; closed with the mesh. */
function as(token: string): MeshClient {
  const client = clients.get(token) ?? connectMesh({ address: mesh.local.address, token });
  clients.set(token, client);
  return client;
}

const PROMPTS = ['a red circle', 'a yellow heart', 'a green star', 'a blue square', 'a black dot', 'a white cross'];

test('a file of prompts becomes a folder of pictures, though the command and a jobs replica are killed; the tenant pays', async () => {
  await writeFile(path.join(dir, 'prompts.txt'), PROMPTS.join('\n'));
  const args = ['submit', 'prompts.txt', '--out', 'pictures'];
  const first = start(args);
  const closed = once(first, 'close'); // on a busy machine it is done before anybody has looked
  const saved = async () => (await readdir(path.join(dir, 'pictures')).catch(() => [])).filter((name) => name.endsWith('.png'));
  await expect.poll(async () => (await saved()).length, PATIENCE).toBeGreaterThan(0);
  first.kill('SIGKILL');
  await closed;
  only(mesh.local.jobs[0]).kill('SIGKILL');

  const again = await dmesh([...args, '--json']);
  expect(again.err).toBe('');
  const { fetched, kept, jobs } = JSON.parse(again.out);
  expect([fetched.length + kept.length, kept.length > 0]).toEqual([PROMPTS.length, true]);
  expect(await saved()).toHaveLength(PROMPTS.length);
  const names = PROMPTS.map((prompt, index) => `${index + 1}-${prompt.replaceAll(' ', '-')}.png`);
  expect((await saved()).sort()).toEqual(names);

  // Each is what the mesh draws for that seed when it is asked directly.
  const shown = await as(acme).jobs.get(jobs[2]);
  expect(shown).toMatchObject({ tenant: 'acme', state: JobState.SUCCEEDED, request: { prompt: 'a green star' }, priority: LOW });
  const { images } = await as(acme).generate({ prompt: 'a green star', seed: shown.request?.seed });
  expect(await readFile(path.join(dir, 'pictures', '3-a-green-star.png'))).toEqual(Buffer.from(only(images[0]).data));

  const nothing = JSON.parse((await dmesh([...args, '--json'])).out);
  expect([nothing.fetched, nothing.kept.length]).toEqual([[], PROMPTS.length]);
  const gpuOf = async (tenant: string) => (await mesh.figures()).sum('dmesh_router_tenant_gpu_seconds_total', { tenant });
  expect(await gpuOf('acme')).toBeGreaterThan(0);
  expect(await gpuOf('jobs')).toBe(0);
  await mesh.local.restart(only(mesh.local.jobs[0]));
});

test('jobs are their tenant’s: listed, shown and cancelled by it, and for others they do not exist', async () => {
  await writeFile(path.join(dir, 'slow.txt'), 'endless [step=5s]\nendless too [step=5s]\nthird [step=5s]');
  const submitted = JSON.parse((await dmesh(['submit', 'slow.txt', '--no-wait', '--json'])).out);
  const [batchId = '', jobId = ''] = [submitted.batches[0], submitted.jobs[0]];
  await expect.poll(async () => (await as(acme).jobs.getBatch(batchId)).runningCount, PATIENCE).toBe(2);
  expect((await dmesh(['jobs', 'list', '--batch', batchId])).out.match(/queued|running/g)).toHaveLength(3);
  const { jobs } = as(globex);
  const asked = [
    () => jobs.get(jobId),
    () => jobs.waitFor(jobId),
    () => jobs.cancel(jobId),
    () => jobs.retry(jobId),
    () => jobs.delete(jobId),
    () => jobs.download(jobId),
    () => jobs.getBatch(batchId),
    () => jobs.cancelBatch(batchId),
  ];
  for (const ask of asked) await expect(ask()).rejects.toMatchObject({ code: Code.NOT_FOUND, reason: Reason.UNKNOWN_JOB });
  for await (const job of jobs.list()) expect(job).toBeUndefined();
  await expect(as('dm_nobody_xxxxxxxxxxxxxxxxxxxxxxxx').jobs.get(jobId)).rejects.toMatchObject({ reason: Reason.UNAUTHENTICATED });
  expect((await dmesh(['jobs', 'cancel', '--batch', batchId])).out).toBe(`3 of ${batchId} cancelled\n`);
  await expect.poll(() => mesh.held(), PATIENCE).toEqual({});
  expect(await dmesh(['jobs', 'watch', jobId])).toMatchObject({ code: 1, out: expect.stringContaining('cancelled') });
  expect(await dmesh(['jobs', 'show', batchId])).toMatchObject({ code: 64, err: expect.stringContaining(`got the batch ${batchId}`) });
  expect((await dmesh(['jobs', 'delete', '--batch', batchId])).out).toBe(`3 of 3 of ${batchId} forgotten\n`);
});

test('a batch with faults is refused as a whole, in the words of the command line', async () => {
  await writeFile(path.join(dir, 'wrong.txt'), 'fine\nfine too');
  const refused = await dmesh(['submit', 'wrong.txt', '--no-wait', '--size', '7x7']);
  expect(refused.code).toBe(2);
  expect(refused.err.match(/--size \(width\): expected/g)).toHaveLength(1);
});
