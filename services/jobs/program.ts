/** The program of a jobs replica, for main.ts and for the tests of crashes, which have it stand still at a step. */
import { shownUrl } from '#bus';
import type { Clock, Random } from '#core';
import type { Program } from '#runtime';
import { createLogger, type Logger } from '#telemetry';
import { type BuildTools, type BuiltJobs, build } from './build.js';
import { type JobsConfig, parseConfig } from './config.js';

export interface ProgramOptions {
  readonly hostName: string;
  /** Whether stdout is one. */
  readonly terminal: boolean;
  readonly clock: Clock;
  readonly random: Random;
  readonly wallNow: () => number;
  readonly reached?: NonNullable<BuildTools['reached']>;
}

export function jobsProgram({ hostName, terminal, ...tools }: ProgramOptions): Program<JobsConfig> {
  let logger: Logger | undefined;
  let built: BuiltJobs | undefined;
  return {
    name: 'jobs',
    summary: 'keeps durable jobs and has them drawn',
    envPrefix: 'DMESH_JOBS_',
    parse: (read) => parseConfig(read, { hostName, terminal }),
    build: async (config) => {
      logger = createLogger({ service: 'jobs', ...config.telemetry, fields: { replica_id: config.replicaId } });
      const { telemetry: _telemetry, nats, routerToken: _token, ...settings } = config;
      logger.info({ config: { ...settings, nats: { ...nats, url: shownUrl(nats.url) } } }, 'starting');
      built = await build(config, { ...tools, logger });
      return built.lifecycle;
    },
    onReady: () => logger?.announce({ ...built?.addresses() }, 'ready'),
    onFailed: (message, error) => logger?.error({ error }, message),
  };
}
