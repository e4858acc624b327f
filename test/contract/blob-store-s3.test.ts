/** Pictures in a bucket of a real S3 server, and what becomes of them when it is away. */
import { once } from 'node:events';
import { access, mkdir, writeFile } from 'node:fs/promises';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest';
import { Code, Reason } from '#core';
import { ConfigError, EnvReader, systemClock } from '#runtime';
import { openBlobs } from '../../services/jobs/blobs/blobs.js';
import { readBlobConfig } from '../../services/jobs/blobs/config.js';
import { S3Store, type S3StoreOptions } from '../../services/jobs/blobs/s3-store.js';
import { findS3Server, S3_BUCKET, S3_CREDENTIALS, type S3Server, startS3Server } from '../support/s3-server.js';
import { describeBlobStore, PAGE_COUNT, picture } from './blob-store-conformance.js';

const program = await findS3Server();
if ('missing' in program) process.stdout.write(`SKIPPED S3: ${program.missing}\n`);

const optionsFor = (endpoint: string): S3StoreOptions => ({
  endpoint,
  region: 'us-east-1',
  bucket: S3_BUCKET,
  prefix: 'jobs/',
  pathStyle: true,
  storageClass: 'STANDARD',
  pageCount: PAGE_COUNT,
  timeoutMs: 20_000,
  clock: systemClock,
});

function open(endpoint: string, changes: Partial<S3StoreOptions> = {}): S3Store {
  const store = new S3Store({ ...optionsFor(endpoint), ...changes });
  onTestFinished(() => store.close());
  return store;
}

beforeAll(() => {
  for (const [name, value] of Object.entries(S3_CREDENTIALS)) vi.stubEnv(name, value);
});
afterAll(() => void vi.unstubAllEnvs());

describe.skipIf('missing' in program)('S3', () => {
  const start = () => startS3Server('path' in program ? program.path : '');

  describeBlobStore('S3Store', async () => {
    const server = await start();
    const stranger = path.join(server.bucketDir, 'jobs/acme/notes.txt');
    return {
      open: (area = 'live') => {
        const place = area === 'live' ? { prefix: 'jobs/' } : { prefix: 'archive/', storageClass: 'STANDARD_IA' as const };
        return new S3Store({ ...optionsFor(server.endpoint), ...place });
      },
      overwrite: (name, bytes) => writeFile(path.join(server.bucketDir, 'jobs', name), bytes),
      addStranger: async () => {
        await mkdir(path.dirname(stranger), { recursive: true });
        await writeFile(stranger, 'not a picture');
      },
      strangerIsThere: () =>
        access(stranger).then(
          () => true,
          () => false,
        ),
      close: () => server.close(),
    };
  });

  describe('a server', () => {
    let server: S3Server;
    beforeAll(async () => {
      server = await start();
    });
    afterAll(() => server?.close());

    test('without the bucket is a wrong configuration', async () => {
      const failed = await open(server.endpoint, { bucket: 'elsewhere' })
        .start()
        .catch((error: unknown) => error);
      expect(failed).toBeInstanceOf(ConfigError);
      expect(String(failed)).toContain('DMESH_JOBS_S3_BUCKET: expected a bucket that can be used, got 404');
    });

    test('that does not know us is a wrong configuration', async () => {
      vi.stubEnv('AWS_SECRET_ACCESS_KEY', 'wrong');
      onTestFinished(() => void vi.stubEnv('AWS_SECRET_ACCESS_KEY', S3_CREDENTIALS.AWS_SECRET_ACCESS_KEY));
      await expect(open(server.endpoint).start()).rejects.toThrow('got 403');
    });

    test('without the bucket has lost no picture', async () => {
      const store = open(server.endpoint, { bucket: 'elsewhere' });
      const { name, bytes } = picture();
      const unavailable = { code: Code.UNAVAILABLE, reason: Reason.STORE_UNAVAILABLE };
      await expect(store.read(name)).rejects.toMatchObject(unavailable);
      await expect(store.put(name, bytes)).rejects.toMatchObject(unavailable);
    });

    test('takes no bytes other than those that were sent', async () => {
      const { name } = picture();
      await expect(open(server.endpoint).put(name, Buffer.from('others'))).rejects.toMatchObject({ reason: Reason.STORE_UNAVAILABLE });
      await expect(open(server.endpoint).read(name)).rejects.toMatchObject({ reason: Reason.RESULT_MISSING });
    });

    test('serves pictures and links from the archive as before', async () => {
      const env = { DMESH_JOBS_STORE: 's3', DMESH_JOBS_S3_ENDPOINT: server.endpoint, DMESH_JOBS_S3_BUCKET: S3_BUCKET };
      const config = readBlobConfig(new EnvReader({ ...env, DMESH_JOBS_ARCHIVE_AFTER: '48h' }, 'DMESH_JOBS_'));
      const inThreeDays = () => Date.now() + 72 * 3_600_000;
      const blobs = await openBlobs({ config, clock: systemClock, wallNow: inThreeDays, emit: () => {} });
      onTestFinished(() => blobs.close());
      await blobs.start();
      const { name, bytes } = picture();
      await blobs.put(name, bytes);
      const { signal } = new AbortController();
      const figures = await blobs.sweep({ isNamed: async () => true, isMine: (jobId) => name.includes(jobId), signal });
      expect(figures).toMatchObject({ movedCount: 1, archivedCount: 1 });
      const answer = await fetch((await blobs.link(name)) ?? expect.fail('no link'));
      expect(Buffer.compare(Buffer.from(await answer.arrayBuffer()), bytes)).toBe(0);
      for await (const { data } of blobs.readFrom(name, 0, signal)) expect(Buffer.compare(data, bytes)).toBe(0);
      await blobs.delete(name);
      expect(await blobs.link(name)).toBeUndefined();
      await blobs.refuseWhenFull(Number.MAX_SAFE_INTEGER); // a bucket tells nothing of its room
    });

    test('that does not answer is waited for no longer than was said', async () => {
      const store = open(server.endpoint, { timeoutMs: 300 });
      const { name, bytes } = picture();
      await store.put(name, bytes);
      await server.pause();
      try {
        const unavailable = { code: Code.UNAVAILABLE, reason: Reason.STORE_UNAVAILABLE };
        await expect(store.read(name)).rejects.toMatchObject(unavailable);
        await expect(store.put(name, bytes)).rejects.toMatchObject(unavailable);
      } finally {
        server.resume();
      }
      expect(Buffer.compare(await open(server.endpoint).read(name), bytes)).toBe(0);
    });
  });

  test('a server that is gone is STORE_UNAVAILABLE, and no reason not to start', async () => {
    const server = await start();
    const store = open(server.endpoint);
    await server.close();
    await store.start();
    const { name, bytes } = picture();
    const unavailable = { code: Code.UNAVAILABLE, reason: Reason.STORE_UNAVAILABLE };
    await expect(store.put(name, bytes)).rejects.toMatchObject(unavailable);
    await expect(store.read(name)).rejects.toMatchObject(unavailable);
    await expect(store.delete(name)).rejects.toMatchObject(unavailable);
  });
});

describe('a played server: no real one fills up, or fails half-way, for a test', () => {
  const played = async (answer: (request: IncomingMessage, response: ServerResponse) => void): Promise<string> => {
    const server = createServer(answer).listen(0, '127.0.0.1');
    await once(server, 'listening');
    onTestFinished(() => {
      server.closeAllConnections();
      server.close();
    });
    const address = server.address();
    return `http://127.0.0.1:${typeof address === 'object' && address !== null ? address.port : 0}`;
  };

  test.each([
    [507, '<Error><Code>XMinioStorageFull</Code></Error>'],
    [400, '<Error><Code>QuotaExceeded</Code></Error>'],
  ])('that is full (%i) is STORE_FULL', async (status, body) => {
    const endpoint = await played((request, response) => void request.resume().on('end', () => response.writeHead(status).end(body)));
    const { name, bytes } = picture();
    await expect(open(endpoint).put(name, bytes)).rejects.toMatchObject({ code: Code.RESOURCE_EXHAUSTED, reason: Reason.STORE_FULL });
  });

  test('that stumbles is asked again', async () => {
    let count = 0;
    const { name, bytes } = picture();
    const endpoint = await played((_, response) => {
      count++;
      if (count < 3) response.writeHead(503).end('<Error><Code>SlowDown</Code></Error>');
      else response.writeHead(200, { 'content-length': bytes.byteLength }).end(bytes);
    });
    expect(Buffer.compare(await open(endpoint).read(name), bytes)).toBe(0);
    expect(count).toBe(3);
  });

  test.each([
    ['stalls', 300, (_: ServerResponse) => {}],
    ['breaks off', 20_000, (response: ServerResponse) => response.destroy()],
  ])('that %s in the middle of a picture is STORE_UNAVAILABLE', async (_, timeoutMs, then) => {
    const { name, bytes } = picture();
    const endpoint = await played((_, response) => {
      response.writeHead(200, { 'content-length': bytes.byteLength });
      response.write(bytes.subarray(0, 500), () => then(response));
    });
    await expect(open(endpoint, { timeoutMs }).read(name)).rejects.toMatchObject({ reason: Reason.STORE_UNAVAILABLE });
  });
});
