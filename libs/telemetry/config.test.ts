import { expect, test } from 'vitest';
import { ConfigError, EnvReader } from '#runtime';
import { readTelemetryConfig } from './config.js';

const parse = (env: Record<string, string>, terminal = false) => {
  const read = new EnvReader(env, 'DMESH_ROUTER_');
  return read.done(readTelemetryConfig(read, { terminal }));
};

test('lines are JSON unless a person looks at them', () => {
  expect(parse({})).toEqual({ level: 'info', format: 'json' });
  expect(parse({}, true)).toEqual({ level: 'info', format: 'pretty' });
  expect(parse({ DMESH_LOG_FORMAT: 'json', DMESH_LOG_LEVEL: 'debug' }, true)).toEqual({ level: 'debug', format: 'json' });
});

test('a level that is none is a fault', () => {
  expect(() => parse({ DMESH_LOG_LEVEL: 'verbose' })).toThrow(ConfigError);
});
