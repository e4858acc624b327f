import { connect } from 'node:http2';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { generation } from '#contracts';
import { systemClock } from '#runtime';
import { Server } from './server.js';

const Service = generation.ImageGenerationServiceService;
const DAY_MS = 24 * 3600 * 1000;
const server = new Server({ clock: systemClock, emit: () => {}, maxRequestBytes: 1 << 20 });
let port = 0;
let leftMs = 0;
beforeAll(async () => {
  const none = () => Promise.reject(new Error('not part of this test'));
  const generate = async ({ deadlineAt }: { deadlineAt: number }) => {
    leftMs = deadlineAt - systemClock.now();
    return generation.GenerateResponse.fromPartial({});
  };
  server.add(Service, { generate, generateStream: none, listModels: none });
  port = await server.listen('127.0.0.1:0');
});
afterAll(() => server.close());

/** The status of a call with this grpc-timeout. */
async function statusWith(timeout: string): Promise<string> {
  const session = connect(`http://127.0.0.1:${port}`);
  try {
    return await new Promise((resolve, reject) => {
      const headers = { 'content-type': 'application/grpc', te: 'trailers', 'grpc-timeout': timeout };
      const stream = session.request({ ':method': 'POST', ':path': Service.generate.path, ...headers });
      const onHeaders = (received: Record<string, unknown>) => {
        if (received['grpc-status'] !== undefined) resolve(String(received['grpc-status']));
      };
      stream.on('response', onHeaders).on('trailers', onHeaders).on('error', reject).resume();
      stream.end(Buffer.alloc(5));
    });
  } finally {
    session.destroy();
  }
}

test.each(['596H', '2592000S', '8760H', '99999999S', '99999999M', '99999999H'])(
  'a deadline of %s is far away, not passed',
  async (timeout) => {
    expect(await statusWith(timeout)).toBe('0');
    expect(leftMs).toBeGreaterThan(24 * DAY_MS);
  },
);

test.each(['-5S', '5S', '5000m', '999999999S', '1H 2S'])('a deadline of %s is some deadline', async (timeout) => {
  expect(await statusWith(timeout)).toBe('0');
  expect(leftMs).toBeGreaterThan(4000);
});

test.each(['abc', '5x', '', '-', 'NaNS'])('a deadline of %j is refused', async (timeout) => {
  expect(await statusWith(timeout)).toBe('13');
});
