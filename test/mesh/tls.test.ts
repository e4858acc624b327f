/**
 * A mesh over untrusted ground: mutual TLS on every leg, NATS with the configuration that operators are
 * given. Certificates are made here, by the script that operators use.
 */
import { execFile } from 'node:child_process';
import { copyFile, readFile, rename, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { type BusEvent, connectBus } from '#bus';
import { connectMesh, JobState, type MeshError } from '#client';
import { generation } from '#contracts';
import { Reason } from '#core';
import { Channel } from '#grpc';
import { findNatsServer, type NatsServer, startNatsServer } from '#local-mesh';
import { packageRoot, systemClock, systemRandom, thisProcess } from '#runtime';
import { clientTlsFromFiles } from '#tls';
import { type DevCa, makeDevCa } from '../support/dev-ca.js';
import { sampleBeat } from '../support/sample-beat.js';
import { useShared } from '../support/shared.js';
import { TestMesh } from '../support/test-mesh.js';

/** A busy machine takes its time. */
const PATIENCE = { timeout: 10_000 };
const SIZE = { width: 64, height: 64, steps: 1 };
const CLI = path.join(packageRoot, 'dist/services/cli/main.js');

let ca: DevCa;
let other: DevCa;
let nats: NatsServer;
let natsUrl = '';
let mesh: TestMesh;

/** What a service of this kind is told. */
const files = (name: string) => ({
  DMESH_TLS_CERT: ca.file(`${name}.pem`),
  DMESH_TLS_KEY: ca.file(`${name}.key`),
  DMESH_TLS_CA: ca.file('mesh-ca.pem'),
});
const shown = (from: DevCa, name: string) => ({ cert: from.file(`${name}.pem`), key: from.file(`${name}.key`) });

useShared(
  async () => {
    [ca, other] = await Promise.all([makeDevCa(), makeDevCa()]);
    const { path: program } = await findNatsServer({ env: thisProcess.env, cacheDir: path.join(packageRoot, '.cache'), log: () => {} });
    const config = path.join(packageRoot, 'deploy/nats/nats-server.conf');
    nats = await startNatsServer({ path: program, cwd: ca.dir, args: ['--config', config] });
    natsUrl = nats.url.replace('nats://', 'tls://');
    mesh = await TestMesh.start({
      nodes: 2,
      natsUrl,
      tls: { ca: ca.file('mesh-ca.pem'), ...shown(ca, 'client') },
      jobsCount: 1,
      env: {
        jobs: { ...files('jobs'), DMESH_JOBS_CALLER_CA: ca.file('mesh-ca.pem'), DMESH_JOBS_STORE_DIR: ca.file('pictures') },
        router: { ...files('router'), DMESH_ROUTER_CALLER_CA: ca.file('caller-ca.pem'), DMESH_ROUTER_NODE_NAME: 'node.dmesh' },
        node: { ...files('node'), SCRIPT_STEP: '1ms' },
      },
    });
  },
  async () => {
    await mesh?.stop();
    await nats?.stop();
    await Promise.all([ca?.drop(), other?.drop()]);
  },
);

test('a picture is drawn, routes are kept, and dmesh works, with certificates on every leg', async () => {
  const { images } = await mesh.client.generate({ prompt: 'x', ...SIZE });
  expect(images).toHaveLength(1);
  const { routes, revision } = await mesh.client.getRoutes();
  expect(routes).toEqual([]);
  await mesh.client.setRoutes([{ name: 'public', targets: [{ model: 'scriptable', revision: '', weight: 1 }] }], {
    expectedRevision: revision,
    force: true,
  });
  await mesh.client.drain('node-1');
  await mesh.client.resume('node-1');
  await mesh.whole();
  const tls = ['--ca', ca.file('mesh-ca.pem'), '--cert', ca.file('client.pem'), '--key', ca.file('client.key')];
  const { stdout } = await promisify(execFile)(process.execPath, [CLI, 'nodes', '--json', '--router', mesh.local.address, ...tls]);
  expect(JSON.parse(stdout)).toHaveLength(2);
});

test('a job is submitted through a router, drawn and fetched, with certificates on every leg', async () => {
  const { jobs } = mesh.client;
  const { job } = await jobs.submit({ prompt: 'x', ...SIZE });
  expect(await jobs.waitFor(job.jobId, { timeoutMs: 20_000 })).toMatchObject({ state: JobState.SUCCEEDED });
  expect((await jobs.download(job.jobId)).data.length).toBeGreaterThan(0);
  // A caller's certificate opens routers, and nothing behind them.
  const [replica] = mesh.local.jobs;
  const direct = connectMesh({ address: replica?.grpc ?? '', tls: { ca: ca.file('mesh-ca.pem'), ...shown(ca, 'client') } });
  await expect(direct.jobs.get(job.jobId)).rejects.toMatchObject({ reason: Reason.CONNECT_FAILED });
  direct.close();
});

test("a caller is refused, and told why, with no certificate, a stranger's, a wrong CA, or no TLS at all", async () => {
  const trusted = ca.file('mesh-ca.pem');
  const callers = [
    { tls: { ca: trusted }, why: 'it asks for a certificate and none was shown' },
    { tls: { ca: trusted, ...shown(other, 'client') }, why: 'perhaps it does not accept the certificate' },
    { tls: { ca: other.file('mesh-ca.pem'), ...shown(ca, 'client') }, why: 'its certificate is not of the CA that is trusted here' },
    { tls: undefined, why: 'perhaps it speaks TLS' },
  ];
  await Promise.all(
    callers.map(async ({ tls, why }) => {
      const client = connectMesh({ address: mesh.local.address, tls });
      await expect(client.listModels()).rejects.toMatchObject({ reason: Reason.CONNECT_FAILED, message: expect.stringContaining(why) });
      client.close();
    }),
  );
});

test('a node lets in parts of the mesh alone: no caller gets round the router', async () => {
  const address = mesh.node('node-1').grpc;
  const ask = (name: string) => {
    const tls = clientTlsFromFiles({ ca: ca.file('mesh-ca.pem'), ...shown(ca, name) });
    const channel = new Channel(address, { clock: systemClock, tls });
    return channel
      .unary(generation.ImageGenerationServiceService.listModels, {})
      .then(
        () => 'OK',
        (error: MeshError) => error.reason,
      )
      .finally(() => channel.close());
  };
  expect(await ask('operator')).toBe('OK');
  expect(await ask('client')).toBe(Reason.CONNECT_FAILED);
});

test("NATS hears nobody without a certificate of the mesh, and nobody says what is another's to say", async () => {
  const open = (from: DevCa, name: string | undefined) => {
    const events: BusEvent[] = [];
    const tls = clientTlsFromFiles({ ca: ca.file('mesh-ca.pem'), ...(name === undefined ? {} : shown(from, name)) });
    const bus = connectBus({
      url: natsUrl,
      name: 'test',
      clock: systemClock,
      random: systemRandom,
      emit: (event) => events.push(event),
      tls,
    });
    return { bus, events, types: () => events.map(({ type }) => type) };
  };
  const strangers = [open(ca, undefined), open(ca, 'client'), open(other, 'node')];
  for (const { types } of strangers) await expect.poll(types, PATIENCE).toContain('busConnectFailed');
  const operator = open(ca, 'operator');
  await expect.poll(operator.types, PATIENCE).toContain('busConnected');
  operator.bus.publish('dmesh.v1.node.ghost.beat', JSON.stringify(sampleBeat({ nodeId: 'ghost' })));
  await expect.poll(operator.types, PATIENCE).toContain('busError');
  expect(JSON.stringify(operator.events)).toContain('not allowed to publish dmesh.v1.node.ghost.beat');
  for (const service of [mesh.router, ...mesh.nodes, ...mesh.local.jobs])
    expect(service.lines.filter((line) => line.includes('not allowed to'))).toEqual([]);
  expect((await mesh.client.listNodes()).map(({ nodeId }) => nodeId).sort()).toEqual(['node-1', 'node-2']);
  for (const { bus } of [...strangers, operator]) await bus.close();
});

test('certificates are replaced while calls run, broken ones change nothing, and nobody notices', async () => {
  // Their own files stay as they are: who starts to call in the moment of a replacement may read half of it.
  for (const kind of ['pem', 'key']) await copyFile(ca.file(`client.${kind}`), ca.file(`caller.${kind}`));
  let calling = true;
  const outcomes = new Map<string, number>();
  const callers = [0, 1].map(async () => {
    while (calling) {
      // Each on a connection of its own: a handshake for every call.
      const client = connectMesh({ address: mesh.local.address, tls: { ca: ca.file('mesh-ca.pem'), ...shown(ca, 'caller') } });
      const outcome = await client.generate({ prompt: 'x', ...SIZE }).then(
        () => 'OK',
        (error: MeshError) => `${error.reason}: ${error.message}`,
      );
      client.close();
      outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
    }
  });
  const services = () => [mesh.router, ...mesh.nodes];
  const loads = async (result: string) => {
    const figures = await Promise.all(services().map((service) => mesh.figures(service)));
    return Math.min(...figures.map((one) => one.sum('dmesh_tls_loads_total', { result })));
  };
  const expiry = async () => (await mesh.figures()).sum('dmesh_tls_expiry_timestamp_seconds', { file: 'cert' });
  const expiredAt = await expiry();

  const good = ca.file('good');
  for (const name of ['router', 'node']) {
    await copyFile(ca.file(`${name}.pem`), `${good}-${name}`);
    await writeFile(ca.file(`${name}.pem`), (await readFile(ca.file(`${name}.pem`))).subarray(0, 200));
  }
  await expect.poll(() => loads('rejected'), PATIENCE).toBeGreaterThan(0);
  await expect.poll(() => mesh.router.lines.some((line) => line.includes('certificates refused')), PATIENCE).toBe(true);
  for (const name of ['router', 'node']) await rename(`${good}-${name}`, ca.file(`${name}.pem`));

  const loadedBefore = await loads('loaded');
  await ca.renew();
  await expect.poll(() => loads('loaded'), PATIENCE).toBeGreaterThan(loadedBefore);
  await expect.poll(expiry, PATIENCE).toBeGreaterThan(expiredAt);
  // New lines to a node, too: its old connections are gone with its old life.
  const gone = mesh.node('node-2');
  await gone.stop(10_000);
  await mesh.revive(gone);
  calling = false;
  await Promise.all(callers);
  expect([...outcomes.keys()]).toEqual(['OK']);
});

test('a router says why a node cannot be reached, and a service with broken files does not start', async () => {
  const lost = await mesh.local.addRouter({ id: 'router-strict', env: { DMESH_ROUTER_NODE_NAME: 'somebody-else' } });
  await lost.waitForLine(({ fields }) => fields?.msg === 'node not reached', { timeoutMs: 10_000, what: 'to complain' });
  expect(lost.lines.find((line) => line.includes('node not reached'))).toContain('its certificate is for another name');
  await lost.stop(10_000);
  const broken = mesh.local.addNode({ id: 'node-broken', env: { DMESH_TLS_KEY: ca.file('router.key') } });
  await expect(broken).rejects.toThrow('exit code 64');
  expect(mesh.local.nodes.at(-1)?.lines.join('\n')).toContain(`expected the key of ${ca.file('node.pem')}, got another one`);
});
