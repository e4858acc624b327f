import { afterEach, expect, test } from 'vitest';
import { generation } from '#contracts';
import { badRequest, Code, Reason, StatusError } from '#core';
import { systemClock } from '#runtime';
import { Channel } from './channel.js';
import { Server } from './server.js';

const Service = generation.ImageGenerationServiceService;
const request = generation.GenerateRequest.fromPartial({ prompt: 'a red circle' });
const cleanups: (() => Promise<void> | void)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function refuseWith(error: StatusError): Promise<Channel> {
  const server = new Server({ clock: systemClock, emit: () => {}, maxRequestBytes: 64 * 1024 });
  const refuse = () => Promise.reject(error);
  server.add(Service, { generate: refuse, generateStream: refuse, listModels: async () => ({ models: [] }) });
  const channel = new Channel(`127.0.0.1:${await server.listen('127.0.0.1:0')}`, { clock: systemClock });
  cleanups.push(
    () => server.close(),
    () => channel.close(),
  );
  return channel;
}

test('a thousand violations: the first are told, the rest is counted, and the connection lives on', async () => {
  const violations = Array.from({ length: 1000 }, (_, i) => ({ field: `loras[${i}].name`, description: 'expected each once'.repeat(20) }));
  const channel = await refuseWith(badRequest(violations));
  const refused = await channel.unary(Service.generate, request).catch((thrown: StatusError) => thrown);
  expect(refused).toMatchObject({ code: Code.INVALID_ARGUMENT, reason: Reason.BAD_REQUEST });
  const told = (refused as StatusError).details.violations ?? [];
  expect(told[0]?.field).toBe('loras[0].name');
  expect(told.at(-1)?.description).toBe(`and ${1000 - told.length + 1} more`);
  await expect(channel.unary(Service.listModels, {})).resolves.toMatchObject({ response: { models: [] } });
});

test('whose limit was exceeded and when to come back survive the wire', async () => {
  const details = { quota: { subject: 'tenant:acme', description: '5 requests a second' }, retryDelayMs: 1250 };
  const channel = await refuseWith(
    new StatusError({ code: Code.RESOURCE_EXHAUSTED, reason: Reason.RATE_LIMITED, message: 'too many', ...details }),
  );
  await expect(channel.unary(Service.generate, request)).rejects.toMatchObject({ reason: Reason.RATE_LIMITED, details });
});

test('names of any length come back shortened', async () => {
  const long = 'n'.repeat(60_000);
  const channel = await refuseWith(
    new StatusError({
      code: Code.NOT_FOUND,
      reason: Reason.UNKNOWN_MODEL,
      message: `expected a model, got ${long}`,
      resource: { type: 'model', name: long, description: long },
      metadata: { name: long },
    }),
  );
  await expect(channel.unary(Service.generate, request)).rejects.toMatchObject({
    code: Code.NOT_FOUND,
    reason: Reason.UNKNOWN_MODEL,
    message: expect.stringMatching(/^expected a model, got n+…$/),
    details: { resource: { type: 'model', name: expect.stringMatching(/^n+…$/) } },
  });
  await expect(channel.unary(Service.listModels, {})).resolves.toBeDefined();
});
