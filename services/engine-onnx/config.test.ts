import { expect, test } from 'vitest';
import { ConfigError, type Env, EnvReader } from '#runtime';
import { parseConfig } from './config.js';

const parse = (env: Env) => parseConfig(new EnvReader(env, 'DMESH_ENGINE_'));

test('parseConfig() has a default for everything', () => {
  expect(parse({})).toEqual({
    socketPath: '/tmp/dmesh-engine.sock',
    threadCount: 1,
    adapterSetCount: 2,
    parentPid: 0,
    logLevel: 'info',
  });
});

test('parseConfig() reads what a node sets', () => {
  const env = {
    DMESH_ENGINE_SOCKET: '/run/e.sock',
    DMESH_ENGINE_THREADS: '4',
    DMESH_ENGINE_LORA_CACHE: '8',
    DMESH_ENGINE_PARENT_PID: '12',
    DMESH_LOG_LEVEL: 'debug',
  };
  expect(parse(env)).toEqual({ socketPath: '/run/e.sock', threadCount: 4, adapterSetCount: 8, parentPid: 12, logLevel: 'debug' });
});

test('parseConfig() names every fault at once', () => {
  const env = { DMESH_ENGINE_SOCKET: `/${'x'.repeat(107)}`, DMESH_ENGINE_THREADS: '0', DMESH_ENGINE_SOKCET: '/a' };
  const faults = [/SOCKET: expected an absolute path of at most 107 bytes/, /THREADS: expected an integer/, /SOKCET: no such setting/];
  try {
    parse(env);
    expect.fail('expected a ConfigError');
  } catch (error) {
    expect(error).toBeInstanceOf(ConfigError);
    expect(error instanceof ConfigError && error.faults).toEqual(faults.map((fault) => expect.stringMatching(fault)));
  }
});
