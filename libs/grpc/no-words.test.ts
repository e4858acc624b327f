import { connect } from 'node:http2';
import { afterEach, expect, test, vi } from 'vitest';
import { generation } from '#contracts';
import { systemClock } from '#runtime';
import { type CallEnded, Server } from './server.js';

const Service = generation.ImageGenerationServiceService;
const cleanups: (() => Promise<void> | void)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

test.each([
  ['a tab', 'Bearer\tdm_secret'],
  ['a byte that is not ASCII', 'Bearer dm_secret\u00ff'],
])('%s in a token: the library writes nothing, least of all the token', async (_, authorization) => {
  const written: unknown[] = [];
  const said = vi.spyOn(console, 'error').mockImplementation((...words) => void written.push(...words));
  const wrote = vi.spyOn(process.stderr, 'write').mockImplementation((text) => written.push(text) > 0);
  const ended: CallEnded[] = [];
  const server = new Server({ clock: systemClock, emit: (event) => ended.push(event), maxRequestBytes: 1024 });
  const none = () => Promise.reject(new Error('not part of this test'));
  server.add(Service, { generate: none, generateStream: none, listModels: none });
  const session = connect(`http://127.0.0.1:${await server.listen('127.0.0.1:0')}`);
  cleanups.push(
    () => server.close(),
    () => session.destroy(),
    () => said.mockRestore(),
    () => wrote.mockRestore(),
  );
  const headers = { ':method': 'POST', ':path': Service.generate.path, 'content-type': 'application/grpc', te: 'trailers' };
  session.request({ ...headers, authorization }).end(Buffer.alloc(5));
  await expect.poll(() => ended.length).toBe(1);
  expect(written).toEqual([]);
});
