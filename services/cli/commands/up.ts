/** dmesh up: a whole mesh on this machine, until Ctrl-C. */
import { access, constants, mkdir } from 'node:fs/promises';
import { createServer } from 'node:net';
import path from 'node:path';
import { connectMesh } from '#client';
import { printable } from '#core';
import type { LocalMesh } from '#local-mesh';
import { type Env, systemClock } from '#runtime';
import { Arguments } from '../arguments.js';
import { type Command, type Context, DEFAULT_ROUTER, ExitCode } from '../command.js';
import { describeFailure } from '../failure.js';
import { FIRST_PICTURE } from '../first-picture.js';
import { keepAlive, logTo, withMesh } from '../mesh-session.js';
import { writingTo } from '../path-fault.js';
import { describePictures, fileNameOf, savePictures } from '../pictures.js';

/** One is enough until it has to outlive a kill. */
const DEFAULT_JOBS_COUNT = 1;

const usage = `dmesh up [options]

  Starts NATS, a router, inference nodes and the jobs service on this machine, shows one log, and drains everything on
  Ctrl-C (a second Ctrl-C does not wait). What dies is started again.

      --nodes N        nodes on the CPU; default one node for each GPU, or 1 without any
      --engine ENGINE  onnx, diffusers (npm run setup:diffusers), or a command line; default DMESH_NODE_ENGINE or onnx
      --model FOLDER   model folder to serve; default DMESH_NODE_MODEL_DIR or the embedded model
      --routers N      routers; the first gets --router-port, the others free ports; default 1
      --jobs N         replicas of the jobs service ("dmesh submit"); default ${DEFAULT_JOBS_COUNT}
      --keep FOLDER    jobs, their pictures and routes outlive Ctrl-C in there, for one mesh at a time; default: they go
                       with the mesh
      --router-port N  default 50051; 0 takes a free one
      --draw           draw one picture into images/ when the mesh is ready, with seed ${FIRST_PICTURE.seed}
      --prompt TEXT    what to draw then; default "${FIRST_PICTURE.prompt}"

  NATS_URL names a NATS to use instead of a new one. Settings of the services pass through:
  DMESH_NODE_…, DMESH_ENGINE_…, DMESH_ROUTER_…, DMESH_JOBS_…, DMESH_LOG_LEVEL (docs/operations.md). Only what has to
  differ between the processes of one machine is chosen for you: …_ID, …_LISTEN, …_HTTP_LISTEN, and for
  nodes on the CPU DMESH_NODE_STATE_DIR. With
  DMESH_ROUTER_TOKEN_FILE, DMESH_TOKEN has to be a token of an administrator, and the jobs service starts with
  DMESH_JOBS_ROUTER_TOKEN, a token made with --acts-for-all. With DMESH_TLS_CERT, …_KEY
  and …_CA everything but NATS speaks TLS with that one certificate; it has to be for 127.0.0.1.
`;

export const up: Command = { name: 'up', summary: 'start a whole mesh on this machine', usage, run };

async function run(args: readonly string[], context: Context): Promise<ExitCode> {
  const read = new Arguments(args, {
    nodes: { type: 'string' },
    engine: { type: 'string' },
    model: { type: 'string' },
    routers: { type: 'string' },
    jobs: { type: 'string' },
    keep: { type: 'string' },
    'router-port': { type: 'string' },
    draw: { type: 'boolean' },
    prompt: { type: 'string' },
  });
  read.expectPositionals([]);
  const nodeCount = read.integer('nodes', { min: 0, max: 256 });
  const routerCount = read.integer('routers', { min: 1, max: 16 }) ?? 1;
  const jobsCount = read.integer('jobs', { min: 0, max: 16 }) ?? (mayDraw(context.env) ? DEFAULT_JOBS_COUNT : 0);
  if (jobsCount > 0 && !mayDraw(context.env)) {
    read.fault('--jobs: expected DMESH_JOBS_ROUTER_TOKEN beside DMESH_ROUTER_TOKEN_FILE, a token made with --acts-for-all, got none');
  }
  const keep = read.text('keep');
  const port = read.integer('router-port', { min: 0, max: 65_535 }) ?? 50_051;
  if (port !== 0 && !(await isFree(port))) {
    read.fault(`--router-port: expected a free port, ${port} is taken (by another mesh?); --router-port 0 takes any that is free`);
  }
  const tls = read.tls(context.env);
  read.check();
  if (keep !== undefined) await makeFolder(keep);

  const { terminal, signal } = context;
  const startedAt = systemClock.now();
  const engine = read.text('engine');
  const model = read.text('model');
  const options = {
    nodeCount,
    cpuNodeCount: 1,
    ...(engine === undefined ? {} : { engine }),
    env: {
      node: model === undefined ? {} : { DMESH_NODE_MODEL_DIR: path.resolve(model) },
      // Who may ask routers may submit jobs.
      jobs: { DMESH_JOBS_TOKEN_FILE: context.env.DMESH_JOBS_TOKEN_FILE ?? context.env.DMESH_ROUTER_TOKEN_FILE },
    },
    routerCount,
    jobsCount,
    keepDir: keep === undefined ? undefined : path.resolve(keep),
    routerListen: `127.0.0.1:${port}`,
    natsUrl: context.env.NATS_URL,
    tls,
    onLine: logTo(context),
  };
  await withMesh(context, options, async (mesh) => {
    keepAlive(mesh, context, systemClock.sleep);
    terminal.out(describeMesh(mesh, (systemClock.now() - startedAt) / 1000, context));
    if (read.flag('draw') || read.text('prompt') !== undefined) await draw(mesh, read, context);
    await aborted(signal);
  });
  return ExitCode.OK;
}

/** Judged before anything is started. */
async function makeFolder(keep: string): Promise<void> {
  await writingTo({ option: '--keep', expects: 'a folder that can be written to', path: keep }, async () => {
    await mkdir(keep, { recursive: true });
    await access(keep, constants.W_OK);
  });
}

/** Said where a mesh with tokens has no jobs service, with the cure. */
function whyNoJobs(tokenFile: string): string {
  return [
    'There is no jobs service ("dmesh submit"): routers want tokens, and there is none for it to show. Make one, which',
    'is printed once, and start again with DMESH_JOBS_ROUTER_TOKEN=dm_… beside DMESH_ROUTER_TOKEN_FILE:',
    `  npx dmesh token add --file ${printable(tokenFile)} --tenant jobs --max-priority high --acts-for-all`,
  ].join('\n');
}

/** Routers that want tokens draw for a jobs service that shows one. */
function mayDraw(env: Env): boolean {
  const shown = env.DMESH_JOBS_ROUTER_TOKEN ?? env.DMESH_JOBS_ROUTER_TOKEN_FILE ?? '';
  return (env.DMESH_ROUTER_TOKEN_FILE ?? '') === '' || shown !== '';
}

async function draw(mesh: LocalMesh, read: Arguments, { env, terminal, signal }: Context): Promise<void> {
  const prompt = read.text('prompt') ?? FIRST_PICTURE.prompt;
  const client = connectMesh({ address: mesh.address, token: env.DMESH_TOKEN, tls: read.tls(env) });
  try {
    const result = await client.generate({ prompt, seed: FIRST_PICTURE.seed }, { signal });
    const saved = await savePictures(result, `images/${fileNameOf(prompt, 'png')}`);
    terminal.out(`\n  ${terminal.paint('green', 'drew')} "${prompt}":\n  ${describePictures(result, saved, terminal.paint)}\n`);
  } catch (error) {
    if (!signal.aborted) terminal.err(describeFailure(error, terminal.paint)); // the mesh stays up to be looked at
  } finally {
    client.close();
  }
}

function describeMesh(mesh: LocalMesh, tookSeconds: number, { env, terminal: { paint } }: Context): string {
  const row = (id: string, address: string, http?: string) =>
    `  ${id.padEnd(10)}${paint('bold', address.padEnd(24))}${http ? paint('dim', `http://${http}/metrics`) : ''}\n`;
  // Not the operators' own, which would stay on the screen: a place for that of whoever calls.
  const needsToken = (env.DMESH_ROUTER_TOKEN_FILE ?? '') !== '';
  const token = needsToken ? 'DMESH_TOKEN=dm_… ' : '';
  const header = needsToken ? `-H 'authorization: Bearer dm_…' ` : '';
  const router = mesh.address === DEFAULT_ROUTER ? '' : ` --router ${mesh.address}`;
  return [
    `\n${paint('green', 'The mesh is ready')} after ${tookSeconds.toFixed(1)} s.\n\n`,
    ...[...mesh.routers, ...mesh.jobs, ...mesh.nodes].map((child) => row(child.id, child.grpc, child.http)),
    row('nats', mesh.natsUrl),
    `\nIn another terminal:\n\n`,
    `  ${token}npx dmesh generate "a small green star on a white background"${router}\n`,
    `  ${token}npx dmesh nodes --watch${router}\n`,
    mesh.jobs.length > 0 ? `  ${token}npx dmesh submit prompts.txt --out pictures${router}   # a prompt a line; now or later\n` : '',
    `  grpcurl -plaintext ${header}-d '{"prompt":"a yellow heart"}' ${mesh.address} diffusionmesh.v1.ImageGenerationService/Generate\n`,
    mesh.nodes[0] ? `  kill -9 ${mesh.nodes[0].pid}   # ${mesh.nodes[0].id} dies; callers see nothing of it\n` : '',
    mesh.jobs.length === 0 && !mayDraw(env) ? `\n${paint('yellow', whyNoJobs(env.DMESH_ROUTER_TOKEN_FILE ?? ''))}\n` : '',
    `\nCtrl-C drains and stops everything.\n\n`,
  ].join('');
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = createServer();
    probe.once('error', () => resolve(false));
    probe.listen(port, '127.0.0.1', () => probe.close(() => resolve(true)));
  });
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
