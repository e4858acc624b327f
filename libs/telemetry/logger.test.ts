import { pbkdf2 } from 'node:crypto';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { expect, onTestFinished, test } from 'vitest';
import { Code, Reason, StatusError } from '#core';
import { createLogger, inBatches, type LoggerOptions } from './logger.js';

function capture(options: Partial<LoggerOptions> = {}) {
  const lines: string[] = [];
  const logger = createLogger({
    service: 'router',
    level: 'info',
    format: 'json',
    destination: { write: (line) => void lines.push(line) },
    ...options,
  });
  return { logger, lines, parsed: () => lines.map((line) => JSON.parse(line)) };
}

test('a line is one JSON object with the level by name, an ISO time and the service', () => {
  const { logger, lines, parsed } = capture({ fields: { node_id: 'n1' } });
  logger.warn({ request_id: 'r1' }, 'slow');
  expect(lines[0]).toMatch(/}\n$/);
  expect(parsed()).toEqual([
    {
      level: 'warn',
      time: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/),
      service: 'router',
      node_id: 'n1',
      request_id: 'r1',
      msg: 'slow',
    },
  ]);
});

test('lines below the level are dropped', () => {
  const { logger, lines } = capture({ level: 'warn' });
  logger.debug({}, 'no');
  logger.info({}, 'no');
  logger.error({}, 'yes');
  expect(lines).toHaveLength(1);
});

test('what is announced passes every level, also from a child', () => {
  const { logger, parsed } = capture({ level: 'error' });
  logger.announce({ grpc: 'a:1' }, 'ready');
  logger.child({ request_id: 'r1' }).announce({}, 'ready');
  logger.info({}, 'no');
  expect(parsed()).toMatchObject([
    { level: 'info', msg: 'ready', grpc: 'a:1' },
    { level: 'info', msg: 'ready', request_id: 'r1' },
  ]);
});

test('a child adds its fields to every line and leaves its parent alone', () => {
  const { logger, parsed } = capture();
  logger.child({ request_id: 'r1' }).info({ step: 2 }, 'child');
  logger.info({}, 'parent');
  expect(parsed()[0]).toMatchObject({ request_id: 'r1', step: 2 });
  expect(parsed()[1]).not.toHaveProperty('request_id');
});

test('a StatusError is written with code name, reason, details and the stacks of its causes', () => {
  const { logger, parsed } = capture();
  const root = Object.assign(new Error('connect refused'), { code: 'ECONNREFUSED' });
  const error = new StatusError({
    code: Code.UNAVAILABLE,
    reason: Reason.CONNECT_FAILED,
    message: 'node n1 is away',
    retryDelayMs: 50,
    cause: new Error('call failed', { cause: root }),
  });
  logger.error({ error }, 'call ended');
  expect(parsed()[0].error).toEqual({
    type: 'StatusError',
    code: 'UNAVAILABLE',
    reason: 'CONNECT_FAILED',
    message: 'node n1 is away',
    details: { retryDelayMs: 50 },
    cause: {
      type: 'Error',
      message: 'call failed',
      stack: expect.stringContaining('logger.test.ts'),
      cause: { type: 'Error', message: 'connect refused', code: 'ECONNREFUSED', stack: expect.stringContaining('logger.test.ts') },
    },
  });
});

test('an error that is its own cause, or no error at all, still makes a line', () => {
  const { logger, parsed } = capture();
  const loop: Error & { cause?: unknown } = new Error('round');
  loop.cause = loop;
  const circular: Record<string, unknown> = {};
  circular.self = circular;
  logger.error({ error: loop }, 'loop');
  logger.error({ error: 'text' }, 'text');
  logger.error({ error: circular }, 'object');
  logger.error({ error: new AggregateError([new Error('a'), new Error('b')], 'both') }, 'many');
  expect(parsed()).toHaveLength(4);
  expect(parsed()[1].error).toEqual({ type: 'string', message: 'text' });
  expect(parsed()[3].error.errors).toMatchObject([{ message: 'a' }, { message: 'b' }]);
});

test('the pretty form obeys nothing that a line says: no new line, no escape, stacks indented', () => {
  const { logger, lines } = capture({ format: 'pretty', fields: { node_id: 'n\nX' } });
  const error = new Error('boom\nforged\u001b[2J');
  logger.error({ request_id: 'a\nforged\u001b[2J\u009b31m\u202e', deep: { er: 'x\ny' }, error }, 'said\nforged\u001b[2J');
  expect(lines).toHaveLength(1);
  const [head, ...stack] = lines.join('').trimEnd().split('\n');
  expect(head).toContain('n␊X · said␊forged␛[2J {"request_id":"a␊forged␛[2J\ufffd31m\ufffd","deep":{"er":"x␊y"}}');
  expect(stack.every((line) => line.startsWith('    '))).toBe(true);
  expect(stack.join('\n')).toContain('boom');
  // biome-ignore lint/suspicious/noControlCharactersInRegex: their absence is what is tested
  expect(lines.join('')).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u202a-\u202e]/);
});

test('the pretty form is for reading: level, service, message and fields on one line, at once', () => {
  const { logger, lines } = capture({ format: 'pretty', fields: { node_id: 'n1' } });
  logger.info({ steps: 8 }, 'ready');
  expect(lines).toHaveLength(1);
  expect(lines[0]).toContain('INFO');
  expect(lines[0]).toContain('router n1 · ready');
  expect(lines[0]).toContain('"steps":8');
});

test('a line that comes while another is being written is written too, also when none follows', async () => {
  const dir = mkdtempSync(path.join(tmpdir(), 'dmesh-log-'));
  const name = path.join(dir, 'log');
  const fd = openSync(name, 'a');
  onTestFinished(() => {
    closeSync(fd);
    rmSync(dir, { recursive: true });
  });
  const lines = inBatches(fd);
  // Writes wait for a thread, and all are taken: so long that both lines' times to be written pass.
  const busy = Array.from({ length: 4 }, () => promisify(pbkdf2)('', '', 500_000, 64, 'sha512'));
  lines.write('first\n');
  await new Promise((resolve) => setTimeout(resolve, 20));
  lines.write('second\n');
  await Promise.all(busy);
  await expect.poll(() => readFileSync(name, 'utf8')).toBe('first\nsecond\n');
});
