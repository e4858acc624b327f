#!/usr/bin/env node
/** Starts an inference node: configuration from the environment, see --help. */
import { hostname, tmpdir } from 'node:os';
import path from 'node:path';
import { shownUrl } from '#bus';
import { ConfigError, expectLargeBuffers, packageRoot, processHost, runProgram, systemClock, systemRandom, thisProcess } from '#runtime';
import { createLogger, type Logger } from '#telemetry';
import { type NodeConfig, parseConfig } from './config.js';
import { twinFaults } from './engine/catalogue.js';
import { engineCommand } from './engine/command.js';
import { buildNode, type InferenceNode } from './service.js';

const host = processHost();
const defaults = {
  hostName: hostname(),
  tempDir: tmpdir(),
  modelDir: path.join(packageRoot, 'libs', 'embedded-model', 'z-image-tiny'),
  terminal: process.stdout.isTTY ?? false,
};

let logger: Logger | undefined;
let node: InferenceNode | undefined;

expectLargeBuffers();

await runProgram<NodeConfig>(
  {
    name: 'inference-node',
    summary: 'one GPU of the mesh: runs an engine and draws what routers send',
    envPrefix: 'DMESH_NODE_',
    parse: (read) => parseConfig(read, defaults),
    build: async (config) => {
      const twins = await twinFaults(config.models.dirs);
      if (twins.length > 0) throw new ConfigError(twins.map((fault) => `DMESH_NODE_MODEL_DIR: ${fault}`));
      logger = createLogger({ service: 'inference-node', ...config.telemetry, fields: { node_id: config.nodeId } });
      const { telemetry: _telemetry, nats, ...settings } = config;
      logger.info({ config: { ...settings, nats: { ...nats, url: shownUrl(nats.url) } } }, 'starting');
      node = await buildNode({
        config,
        clock: systemClock,
        random: systemRandom,
        logger,
        process: thisProcess,
        engineCommand: engineCommand(config.engine, { nodePath: thisProcess.nodePath, packageRoot }),
        startedAtEpochMs: Date.now(),
      });
      return node.lifecycle;
    },
    onReady: () => logger?.announce({ ...node?.addresses() }, 'ready'),
    onFailed: (message, error) => logger?.error({ error }, message),
  },
  host,
);
