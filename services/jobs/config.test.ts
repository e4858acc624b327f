import { expect, test } from 'vitest';
import { EnvReader } from '#runtime';
import { parseConfig } from './config.js';

const parse = (env: Readonly<Record<string, string>>) =>
  parseConfig(new EnvReader(env, 'DMESH_JOBS_'), { hostName: 'gpu.example.com', terminal: false });

test('defaults hold on one machine', () => {
  const config = parse({});
  expect(config.replicaId).toBe('jobs-gpu-example-com');
  expect(config.retry).toEqual({ retryCount: 3, retryDelayMs: 10_000 });
  expect(config.retention.byTenant.size).toBe(0);
});

test('tenants may have times of their own', () => {
  const { byTenant } = parse({ DMESH_JOBS_RETENTION_TENANTS: 'acme=24h, st.udio=90m' }).retention;
  expect([...byTenant]).toEqual([
    ['acme', 24 * 3_600_000],
    ['st.udio', 90 * 60_000],
  ]);
});

test.each([
  [{ DMESH_JOBS_ID: 'a.b' }, 'DMESH_JOBS_ID'],
  [{ DMESH_JOBS_RETENTION_TENANTS: 'acme' }, 'expected tenant=duration'],
  [{ DMESH_JOBS_RETENTION_TENANTS: 'acme=7' }, 'expected tenant=duration'],
  [{ DMESH_JOBS_LISTEN: '0.0.0.0:50061' }, 'DMESH_JOBS_OPEN=yes lets everybody in'],
  [{ DMESH_JOBS_CALLER_CA: 'ca.pem' }, 'together with DMESH_TLS_CERT'],
  [{ DMESH_JOBS_ROUTER_NAME: 'router' }, 'together with DMESH_TLS_CA'],
  [{ DMESH_JOBS_ROUTER_TOKEN: 'dm_x', DMESH_JOBS_ROUTER_TOKEN_FILE: 'token' }, 'got both'],
  [{ DMESH_JOBS_ROUTERS: 'nowhere' }, 'DMESH_JOBS_ROUTERS'],
  [{ DMESH_JOBS_RETRY: '3' }, 'no such setting'],
])('%j is a fault', (env, fault) => {
  expect(() => parse(env as Record<string, string>)).toThrow(fault);
});

test.each([[{ DMESH_JOBS_TOKEN_FILE: 'tokens.json' }], [{ DMESH_JOBS_OPEN: 'yes' }]])(
  'with %j it may listen beyond this machine',
  (env) => {
    expect(parse({ ...env, DMESH_JOBS_LISTEN: '0.0.0.0:50061' } as Record<string, string>).listen).toBe('0.0.0.0:50061');
  },
);
