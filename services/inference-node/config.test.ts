import { expect, test } from 'vitest';
import { ConfigError, EnvReader } from '#runtime';
import { parseConfig } from './config.js';

const DEFAULTS = { hostName: 'gpu-box.example', tempDir: '/tmp', modelDir: '/models/tiny', terminal: false };
const parse = (env: Record<string, string>) => parseConfig(new EnvReader(env, 'DMESH_NODE_'), DEFAULTS);

test('parseConfig names a node after its host and GPU', () => {
  expect(parse({}).nodeId).toBe('gpu-box-example-cpu');
  expect(parse({ DMESH_NODE_GPU: '1' }).nodeId).toBe('gpu-box-example-gpu-1');
});

test('an execution limit whose floor is above its cap is a fault', () => {
  expect(() => parse({ DMESH_NODE_EXECUTION_FLOOR: '1h', DMESH_NODE_EXECUTION_CAP: '1s' })).toThrow(ConfigError);
  expect(parse({ DMESH_NODE_EXECUTION_FLOOR: '1s', DMESH_NODE_EXECUTION_CAP: '1s' }).execution.floorMs).toBe(1000);
});

test('a node with a certificate has a CA of those it lets in', () => {
  const own = { DMESH_TLS_CERT: 'c', DMESH_TLS_KEY: 'k' };
  expect(() => parse(own)).toThrow('DMESH_TLS_CA: expected together with DMESH_TLS_CERT');
  expect(parse({ ...own, DMESH_TLS_CA: 'a' }).tls).toEqual({ cert: 'c', key: 'k', ca: 'a' });
});

test('parseConfig reports every fault at once', () => {
  const faulty = {
    DMESH_NODE_ID: 'a.b',
    DMESH_NODE_CANARY_SHA256: 'short',
    DMESH_NODE_GRANT_TTL: '30',
    DMESH_NODE_EXECUTION_FACTOR: '0.5',
    DMESH_NODE_LISTEN: 'nonsense',
    DMESH_NODE_ADVERTISE: 'node:99999',
    DMESH_NODE_HTTP_LISTEN: '::1:80',
    NATS_URL: 'http://127.0.0.1',
    DMESH_NODE_STATE_DIR: `/tmp/${'x'.repeat(100)}`,
    DMESH_NODE_LISTN: '127.0.0.1:0',
  };
  let thrown: unknown;
  try {
    parse(faulty);
  } catch (error) {
    thrown = error;
  }
  expect(thrown).toBeInstanceOf(ConfigError);
  const { faults } = thrown as ConfigError;
  for (const name of Object.keys(faulty)) expect(faults.some((fault) => fault.startsWith(name))).toBe(true);
  expect(faults).toHaveLength(10);
});
