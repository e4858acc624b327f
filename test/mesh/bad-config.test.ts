/** A bad configuration stops a process before it binds a port: exit code 64, every fault in one go. */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { expect, test } from 'vitest';
import { packageRoot } from '#runtime';

interface Ran {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

function run(service: string, env: Record<string, string>, args: readonly string[] = []): Promise<Ran> {
  const main = path.join(packageRoot, 'dist/services', service, 'main.js');
  return new Promise((resolve) => {
    execFile(process.execPath, [main, ...args], { env: { ...process.env, ...env }, timeout: 20_000 }, (error, out, err) => {
      resolve({ code: Number(error?.code ?? 0), out, err });
    });
  });
}

test.each([
  ['router', { DMESH_ROUTER_QUEUE_MIN: 'many', DMESH_ROUTER_QUEUE_TIMEOUT: '30', DMESH_ROUTER_RETRY_RATIO: '7', DMESH_LOG_LEVEL: '' }],
  ['router', { DMESH_ROUTER_LISTEN: 'nonsense', DMESH_ROUTER_HTTP_LISTEN: '127.0.0.1:99999', NATS_URL: 'http://127.0.0.1' }],
  [
    'inference-node',
    { DMESH_NODE_ID: 'no spaces', DMESH_NODE_GRANT_TTL: 'soon', DMESH_NODE_MAX_REQUEST: '-1', DMESH_NODE_NO_SUCH_SETTING: '1' },
  ],
  ['jobs', { DMESH_JOBS_ID: 'no spaces', DMESH_JOBS_ROUTERS: 'nowhere', DMESH_JOBS_RETENTION_TENANTS: 'acme', DMESH_JOBS_RETRY: '3' }],
  ['engine-onnx', { DMESH_ENGINE_SOCKET: '', DMESH_ENGINE_NO_SUCH_SETTING: '1' }],
])('%s: exit code 64, and every faulty setting is named', async (service, env) => {
  const { code, out, err } = await run(service, env);
  expect(code).toBe(64);
  for (const name of Object.keys(env)) expect(err + out).toContain(name);
  expect(out).not.toContain('"ready"');
});

test.each(['router', 'inference-node', 'jobs', 'engine-onnx'])('%s --help tells every setting with its default', async (service) => {
  const { code, out } = await run(service, {}, ['--help']);
  expect(code).toBe(0);
  expect(out).toMatch(/DMESH_\w+/);
  expect(out).toContain('default');
});

test.runIf(existsSync('/proc/self'))('a node whose state folder cannot be made says so in one line and ends with 1', async () => {
  const { code, out, err } = await run('inference-node', { DMESH_NODE_STATE_DIR: '/proc/nope', DMESH_LOG_FORMAT: 'json' });
  const lines = (out + err).trim().split('\n');
  expect([code, lines.length]).toEqual([1, 2]); // 'starting', with the settings, and this:
  expect(lines[1]).toContain('DMESH_NODE_STATE_DIR: expected a folder that can be written, got /proc/nope');
});
