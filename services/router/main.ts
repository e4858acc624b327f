#!/usr/bin/env node
/** Starts a router: settings from the environment, listed by --help. */
import { hostname } from 'node:os';
import { shownUrl } from '#bus';
import { expectLargeBuffers, processHost, runProgram, systemClock, systemRandom } from '#runtime';
import { createLogger, type Logger } from '#telemetry';
import { type BuiltRouter, build } from './build.js';
import { parseConfig, type RouterConfig } from './config.js';

const defaults = { hostName: hostname(), terminal: process.stdout.isTTY ?? false };
let logger: Logger | undefined;
let built: BuiltRouter | undefined;

expectLargeBuffers();

await runProgram<RouterConfig>(
  {
    name: 'router',
    summary: 'takes Generate calls and spreads them over inference nodes',
    envPrefix: 'DMESH_ROUTER_',
    parse: (read) => parseConfig(read, defaults),
    build: async (config) => {
      logger = createLogger({ service: 'router', ...config.telemetry, fields: { router_id: config.routerId } });
      const { telemetry: _telemetry, nats, ...settings } = config;
      logger.info({ config: { ...settings, nats: { ...nats, url: shownUrl(nats.url) } } }, 'starting');
      built = await build(config, { clock: systemClock, random: systemRandom, logger, startedAtEpochMs: Date.now() });
      return built.lifecycle;
    },
    onReady: () => logger?.announce({ ...built?.addresses() }, 'ready'),
    onFailed: (message, error) => logger?.error({ error }, message),
  },
  processHost(),
);
