import { expect, test } from 'vitest';
import { Code, Reason, StatusError } from '#core';
import type { CallEnded } from '#grpc';
import { createLogger } from './logger.js';
import { createMetrics } from './metrics.js';
import { observeCalls } from './observe-calls.js';

const GENERATE = '/diffusionmesh.v1.ImageGenerationService/Generate';

function observed() {
  const lines: string[] = [];
  const metrics = createMetrics({ service: 's' });
  const logger = createLogger({ service: 's', level: 'debug', format: 'json', destination: { write: (line) => void lines.push(line) } });
  return { emit: observeCalls({ metrics, logger }), metrics, line: () => JSON.parse(lines.at(-1) ?? '{}') };
}

function ended(event: Partial<CallEnded>): CallEnded {
  return { type: 'callEnded', method: GENERATE, code: Code.OK, reason: 'OK', durationMs: 12.345, peer: '127.0.0.1:9', notes: {}, ...event };
}

test('one call is one line with the notes of its handler, one count and one duration', async () => {
  const { emit, metrics, line } = observed();
  emit(ended({ notes: { request_id: 'r1', attempts: 2 } }));
  expect(line()).toMatchObject({
    level: 'info',
    method: GENERATE,
    code: 'OK',
    duration_ms: 12.3,
    request_id: 'r1',
    attempts: 2,
    msg: 'call ended',
  });
  const text = await metrics.render();
  expect(text).toContain(`dmesh_grpc_requests_total{method="${GENERATE}",code="OK",reason="OK",service="s"} 1`);
  expect(text).toContain(`dmesh_grpc_request_duration_seconds_count{service="s",method="${GENERATE}",code="OK"} 1`);
});

test.each([Reason.UNAUTHENTICATED, Reason.RATE_LIMITED])('%s is counted, and no line for everybody to write', async (reason) => {
  const { emit, metrics, line } = observed();
  emit(ended({ code: Code.UNAUTHENTICATED, reason }));
  expect(line().level).toBe('debug');
  expect(await metrics.render()).toContain(`reason="${reason}"`);
});

test.each([
  ['/grpc.health.v1.Health/Check', Code.OK, 'debug'],
  ['/grpc.reflection.v1.ServerReflection/ServerReflectionInfo', Code.OK, 'debug'],
  ['/diffusionmesh.v1.InferenceNodeService/Attach', Code.UNAVAILABLE, 'debug'],
  ['/diffusionmesh.v1.MeshAdminService/Drain', Code.OK, 'info'],
  [GENERATE, Code.INVALID_ARGUMENT, 'info'],
  [GENERATE, Code.INTERNAL, 'error'],
])('%s with code %i is written at %s', (method, code, level) => {
  const { emit, line } = observed();
  emit(ended({ method, code, reason: 'x' }));
  expect(line().level).toBe(level);
});

test('an expected failure carries its sentence; a fault carries its causes', () => {
  const { emit, line } = observed();
  const busy = new StatusError({ code: Code.RESOURCE_EXHAUSTED, reason: Reason.QUEUE_FULL, message: 'the queue is full' });
  emit(ended({ code: busy.code, reason: busy.reason, error: busy }));
  expect(line()).toMatchObject({ code: 'RESOURCE_EXHAUSTED', reason: 'QUEUE_FULL', detail: 'the queue is full' });
  const fault = StatusError.from(new TypeError('x is undefined'));
  emit(ended({ code: fault.code, reason: fault.reason, error: fault }));
  expect(line().error.cause).toMatchObject({ type: 'TypeError', stack: expect.stringContaining('observe-calls.test.ts') });
});

test('a reason nobody knows does not become a label value', async () => {
  const { emit, metrics } = observed();
  emit(ended({ code: Code.ABORTED, reason: 'user-made-4711' }));
  const text = await metrics.render();
  expect(text).toContain('reason="OTHER"');
  expect(text).not.toContain('4711');
});
