/** The scriptable engine as a process, started by a node exactly like a real one. */
import { closeSync, existsSync, mkdirSync, openSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { engine, type generation } from '#contracts';
import { Server } from '#grpc';
import type { ModelInfo } from '#model-package';
import { Lifecycle, part, processHost, runProgram, systemClock } from '#runtime';
import { parseConfig, type ScriptableConfig } from './config.js';
import { scriptableEngine } from './engine.js';
import { SCRIPTED_MODEL } from './model.js';

const PARENT_CHECK_MS = 200;

function build(config: ScriptableConfig): Lifecycle {
  const startNumber = markStart(config.stateDir);
  if (startNumber <= config.failedStartCount) {
    process.stderr.write(`start ${startNumber} fails, as asked\n`);
    process.exit(3);
  }
  const drifts = config.driftFromStart > 0 && startNumber >= config.driftFromStart;
  const server = new Server({ clock: systemClock, emit: () => {}, maxRequestBytes: 64 * 1024 * 1024 });
  const handlers = scriptableEngine({
    clock: systemClock,
    script: config.script,
    loadMs: config.loadMs,
    determinismClass: config.determinismClass,
    drift: drifts ? 1n : 0n,
    readModel,
    firstTime: (name) => firstTime(config.stateDir, name),
    crash: () => {
      process.kill(process.pid, 'SIGKILL');
      throw new Error('unreachable');
    },
    memoryUsedBytes: () => process.memoryUsage.rss(),
  });
  server.add(engine.EngineServiceService, handlers);
  const listener = part('grpc', {
    start: async () => {
      watchParent(config.parentPid);
      await server.listen(`unix:${config.socket}`);
    },
    close: () => server.close(),
  });
  return new Lifecycle([listener], { clock: systemClock, graceMs: 0 });
}

/** An orphan's parent becomes another process. */
function watchParent(parentPid: number): void {
  if (parentPid === 0) return;
  setInterval(() => {
    if (process.ppid !== parentPid) process.exit(0);
  }, PARENT_CHECK_MS).unref();
}

function readModel(modelDir: string): generation.Model {
  const file = path.join(modelDir, 'mesh.json');
  const info: ModelInfo = modelDir !== '' && existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : SCRIPTED_MODEL;
  const { name, revision, family, defaults, limits, negativePrompt } = info;
  return {
    name,
    revision,
    family,
    languages: [...info.languages],
    defaults: { ...defaults },
    limits: { ...limits },
    negativePrompt,
    loras: info.loras.map((lora) => ({ ...lora })),
    nodes: 1,
  };
}

/** Which start this is, the first being 1. */
function markStart(stateDir: string | undefined): number {
  if (stateDir === undefined) return 1;
  mkdirSync(stateDir, { recursive: true });
  closeSync(openSync(path.join(stateDir, `start-${process.pid}-${process.hrtime.bigint()}`), 'wx'));
  return readdirSync(stateDir).filter((name) => name.startsWith('start-')).length;
}

function firstTime(stateDir: string | undefined, name: string): boolean {
  if (stateDir === undefined) return true;
  try {
    closeSync(openSync(path.join(stateDir, `once-${Buffer.from(name).toString('hex').slice(0, 200)}`), 'wx'));
    return true;
  } catch {
    return false; // the mark is there: it has happened
  }
}

await runProgram(
  {
    name: 'scriptable-engine',
    summary: 'an engine that does what a test tells it to',
    envPrefix: 'SCRIPT_',
    parse: parseConfig,
    build: async (config: ScriptableConfig) => build(config),
    onFailed: (message, error) => process.stderr.write(`${message}: ${error instanceof Error ? error.stack : error}\n`),
  },
  processHost(),
);
