import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { expect, onTestFinished, test, vi } from 'vitest';
import { connectBus, ReplicaDirectory } from '#bus';
import { findNatsServer, startNatsServer } from '#local-mesh';
import { EnvReader, systemClock } from '#runtime';
import { createLogger } from '#telemetry';
import { type JobsStore, startJobsStore } from '../../test/support/jobs-store.js';
import { S3_CREDENTIALS } from '../../test/support/s3-server.js';
import { useShared } from '../../test/support/shared.js';
import { build } from './build.js';
import { parseConfig } from './config.js';

let store: JobsStore;
useShared(
  async () => {
    for (const [name, value] of Object.entries(S3_CREDENTIALS)) vi.stubEnv(name, value);
    store = await startJobsStore();
  },
  async () => {
    vi.unstubAllEnvs();
    await store?.stop();
  },
);

async function start(env: Readonly<Record<string, string>>) {
  const here = { DMESH_JOBS_LISTEN: '127.0.0.1:0', DMESH_JOBS_HTTP_LISTEN: '127.0.0.1:0', DMESH_LOG_LEVEL: 'error', ...env };
  const config = parseConfig(new EnvReader(here, 'DMESH_JOBS_'), { hostName: 'here', terminal: false });
  const logger = createLogger({ service: 'jobs', ...config.telemetry });
  const { lifecycle } = await build(config, { clock: systemClock, random: Math.random, logger, wallNow: () => Date.now() });
  onTestFinished(() => lifecycle.stop());
  await lifecycle.start();
  return lifecycle;
}

test('NATS may be there before the store of pictures, whose library for S3 takes its time', async () => {
  const lifecycle = await start({
    NATS_URL: store.nats.url,
    DMESH_JOBS_STORE: 's3',
    DMESH_JOBS_S3_ENDPOINT: 'http://127.0.0.1:1',
    DMESH_JOBS_S3_BUCKET: 'pictures',
    DMESH_JOBS_S3_TIMEOUT: '2s',
  });
  expect(lifecycle.phase).toBe('ready');
});

test('it owns jobs once it has read the records, and not where NATS keeps none', async () => {
  const dir = await mkdtemp(path.join(os.tmpdir(), 'dmesh-build-'));
  onTestFinished(() => rm(dir, { recursive: true, force: true }));
  const { path: file } = await findNatsServer({
    env: process.env,
    cacheDir: path.resolve(import.meta.dirname, '../../.cache'),
    log: () => {},
  });
  const forgetful = await startNatsServer({ path: file });
  onTestFinished(() => forgetful.stop());
  const announced = async (url: string) => {
    const bus = connectBus({ url, name: 'test', clock: systemClock, random: () => 0, emit: () => {} });
    const replicas = new ReplicaDirectory({ bus, clock: systemClock, service: 'jobs', emit: () => {} });
    onTestFinished(async () => {
      replicas.stop();
      await bus.close();
    });
    replicas.start();
    await start({ NATS_URL: url, DMESH_JOBS_ID: 'one', DMESH_JOBS_STORE_DIR: dir });
    return () => replicas.live().map(({ id, draining = false }) => ({ id, draining }));
  };
  const following = await announced(store.nats.url);
  await expect.poll(following, { timeout: 10_000 }).toEqual([{ id: 'one', draining: false }]);
  const refused = await announced(forgetful.url);
  await expect.poll(refused, { timeout: 10_000 }).toEqual([{ id: 'one', draining: true }]);
});
