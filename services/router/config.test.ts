import { expect, test } from 'vitest';
import { ConfigError, EnvReader } from '#runtime';
import { parseConfig } from './config.js';

const parse = (env: Record<string, string>) => parseConfig(new EnvReader(env, 'DMESH_ROUTER_'), { hostName: 'box', terminal: false });

function faultsOf(env: Record<string, string>): readonly string[] {
  try {
    parse(env);
    return [];
  } catch (error) {
    if (error instanceof ConfigError) return error.faults;
    throw error;
  }
}

test('parseConfig takes addresses and NATS servers of every form', () => {
  const env = { DMESH_ROUTER_LISTEN: '[::1]:0', DMESH_ROUTER_HTTP_LISTEN: 'box.example:65535', NATS_URL: 'nats://u:p@a:1, tls://b' };
  expect(parse(env)).toMatchObject({ listen: '[::1]:0', httpListen: 'box.example:65535', nats: { url: 'nats://u:p@a:1, tls://b' } });
});

test('parseConfig makes an id of any host name, and refuses one that is no token of a subject', () => {
  expect(parseConfig(new EnvReader({}, ''), { hostName: 'gpu-box.example', terminal: false }).routerId).toBe('router-gpu-box-example');
  expect(faultsOf({ DMESH_ROUTER_ID: 'a.b' })).toEqual(['DMESH_ROUTER_ID: expected up to 64 of [A-Za-z0-9_-], got "a.b"']);
});

test('parseConfig reports every fault at once, and no password', () => {
  expect(faultsOf({ DMESH_ROUTER_LISTEN: 'nonsense', DMESH_ROUTER_HTTP_LISTEN: 'box:65536', NATS_URL: 'nats://me:secret@a:b' })).toEqual([
    'DMESH_ROUTER_LISTEN: expected host:port such as 127.0.0.1:7001, got "nonsense"',
    'DMESH_ROUTER_HTTP_LISTEN: expected host:port such as 127.0.0.1:7001, got "box:65536"',
    'NATS_URL: expected nats://host:4222 or tls://host:4222, got "***@a:b"',
  ]);
});

test.each([
  ['0.0.0.0:1', {}, 1],
  ['[::]:1', {}, 1],
  ['box.example:1', {}, 1],
  ['127.0.0.1.example:1', {}, 1],
  ['127.1.2.3:1', {}, 0],
  ['localhost:1', {}, 0],
  ['[::1]:1', {}, 0],
  ['0.0.0.0:1', { DMESH_ROUTER_OPEN: 'yes' }, 0],
  ['0.0.0.0:1', { DMESH_ROUTER_OPEN: 'no' }, 1],
  ['0.0.0.0:1', { DMESH_ROUTER_TOKEN_FILE: 'tokens.json' }, 0],
  ['0.0.0.0:1', { DMESH_TLS_CERT: 'c', DMESH_TLS_KEY: 'k' }, 1],
  ['0.0.0.0:1', { DMESH_TLS_CERT: 'c', DMESH_TLS_KEY: 'k', DMESH_ROUTER_CALLER_CA: 'a' }, 0],
])('an open mesh is for its own machine unless told otherwise: %s with %j', (listen, env, faultCount) => {
  const faults = faultsOf({ DMESH_ROUTER_LISTEN: listen, ...env });
  expect(faults).toHaveLength(faultCount);
  for (const fault of faults) expect(fault).toContain('DMESH_ROUTER_TOKEN_FILE');
});

test.each([
  [{ DMESH_TLS_CERT: 'c' }, 'DMESH_TLS_CERT: expected together with DMESH_TLS_KEY'],
  [{ DMESH_TLS_CA: 'a' }, 'DMESH_TLS_CA: expected together with DMESH_TLS_CERT'],
  [{ DMESH_ROUTER_CALLER_CA: 'a' }, 'DMESH_ROUTER_CALLER_CA: expected together with DMESH_TLS_CERT'],
  [{ DMESH_TLS_CERT: 'c', DMESH_TLS_KEY: 'k', DMESH_ROUTER_NODE_NAME: 'node.dmesh' }, 'DMESH_ROUTER_NODE_NAME: expected together'],
  [{ DMESH_TLS_CRT: 'c' }, 'DMESH_TLS_CRT: no such setting'],
])('half of what TLS needs, or a slip of the pen, is a fault and never plain text: %j', (env, fault) => {
  expect(faultsOf(env)).toEqual([expect.stringContaining(fault)]);
});

test('an execution limit whose floor is above its cap is a fault, defaults included', () => {
  expect(faultsOf({ DMESH_ROUTER_EXECUTION_FLOOR: '1h', DMESH_ROUTER_EXECUTION_CAP: '1s' })).toEqual([
    'DMESH_ROUTER_EXECUTION_FLOOR: expected at most DMESH_ROUTER_EXECUTION_CAP, which is 1000 ms, got 3600000 ms',
  ]);
  expect(faultsOf({ DMESH_ROUTER_EXECUTION_CAP: '10s' })).toHaveLength(1);
  expect(faultsOf({ DMESH_ROUTER_EXECUTION_FLOOR: '10s', DMESH_ROUTER_EXECUTION_CAP: '10s' })).toEqual([]);
});
