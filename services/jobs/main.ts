#!/usr/bin/env node
/** Starts a replica of the jobs service: settings from the environment, listed by --help. */
import { hostname } from 'node:os';
import { shownUrl } from '#bus';
import { expectLargeBuffers, processHost, runProgram, systemClock, systemRandom } from '#runtime';
import { createLogger, type Logger } from '#telemetry';
import { type BuiltJobs, build } from './build.js';
import { type JobsConfig, parseConfig } from './config.js';

const defaults = { hostName: hostname(), terminal: process.stdout.isTTY ?? false };
let logger: Logger | undefined;
let built: BuiltJobs | undefined;

expectLargeBuffers();

await runProgram<JobsConfig>(
  {
    name: 'jobs',
    summary: 'keeps durable jobs and has them drawn',
    envPrefix: 'DMESH_JOBS_',
    parse: (read) => parseConfig(read, defaults),
    build: async (config) => {
      logger = createLogger({ service: 'jobs', ...config.telemetry, fields: { replica_id: config.replicaId } });
      const { telemetry: _telemetry, nats, routerToken: _token, ...settings } = config;
      logger.info({ config: { ...settings, nats: { ...nats, url: shownUrl(nats.url) } } }, 'starting');
      built = await build(config, { clock: systemClock, random: systemRandom, logger, wallNow: Date.now });
      return built.lifecycle;
    },
    onReady: () => logger?.announce({ ...built?.addresses() }, 'ready'),
    onFailed: (message, error) => logger?.error({ error }, message),
  },
  processHost(),
);
