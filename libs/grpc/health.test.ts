import { afterEach, expect, test } from 'vitest';
import { health } from '#contracts';
import { Code } from '#core';
import { systemClock } from '#runtime';
import { Channel } from './channel.js';
import { addHealth } from './health.js';
import { Server } from './server.js';

const Service = health.HealthService;
const { SERVING, NOT_SERVING, SERVICE_UNKNOWN } = health.HealthCheckResponse_ServingStatus;
const cleanups: (() => Promise<void> | void)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function start() {
  const state = { ready: false };
  const server = new Server({ clock: systemClock, emit: () => {}, maxRequestBytes: 1024 });
  addHealth(server, { clock: systemClock, isReady: () => state.ready });
  const channel = new Channel(`127.0.0.1:${await server.listen('127.0.0.1:0')}`, { clock: systemClock });
  cleanups.push(
    () => server.close(),
    () => channel.close(),
  );
  const check = async (service: string) => (await channel.unary(Service.check, { service })).response.status;
  const watch = async (service: string, heard: (status: number) => void) => {
    for await (const { status } of channel.serverStream(Service.watch, { service })) heard(status);
  };
  return { server, state, check, watch };
}

test('health tells readiness apart from life', async () => {
  const { state, check } = await start();
  expect(await check('')).toBe(SERVING);
  expect(await check('ready')).toBe(NOT_SERVING);
  state.ready = true;
  expect(await check('ready')).toBe(SERVING);
  state.ready = false;
  expect(await check('ready')).toBe(NOT_SERVING);
  await expect(check('nobody')).rejects.toMatchObject({ code: Code.NOT_FOUND });
});

test('who watches hears of every change, and of the end', async () => {
  const { server, state, watch } = await start();
  const heard: number[] = [];
  const strange: number[] = [];
  const watched = watch('ready', (status) => heard.push(status)).catch((error) => error);
  const wondered = watch('nobody', (status) => strange.push(status)).catch((error) => error);
  await expect.poll(() => heard).toEqual([NOT_SERVING]);
  state.ready = true;
  await expect.poll(() => heard, { timeout: 5000 }).toEqual([NOT_SERVING, SERVING]);
  expect(strange).toEqual([SERVICE_UNKNOWN]);
  await server.drain();
  for (const ended of [await watched, await wondered]) expect(ended).toMatchObject({ code: Code.UNAVAILABLE });
});
