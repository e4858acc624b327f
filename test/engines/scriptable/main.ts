/** The scriptable engine as a process, started by a node exactly like a real one. */
import { closeSync, existsSync, mkdirSync, openSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import path from 'node:path';
import { engine } from '#contracts';
import { Server } from '#grpc';
import { type ModelInfo, modelUnusable } from '#model-package';
import { Lifecycle, part, processHost, runProgram, systemClock, watchParent } from '#runtime';
import { parseConfig, type ScriptableConfig } from './config.js';
import { scriptableEngine } from './engine.js';
import { SCRIPTED_MODEL } from './model.js';

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
    laterLoadMs: config.laterLoadMs,
    modelRoom: config.modelRoom,
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
      watchParent(config.parentPid, () => process.exit(0));
      rmSync(config.socket, { force: true }); // left by an engine that was killed
      await server.listen(`unix:${config.socket}`);
    },
    close: () => server.close(),
  });
  return new Lifecycle([listener], { clock: systemClock, graceMs: 0 });
}

/** The model of a folder; without any folder, the engine's own. */
function readModel(modelDir: string): ModelInfo {
  if (!existsSync(modelDir)) return SCRIPTED_MODEL;
  const file = path.join(modelDir, 'mesh.json');
  if (!existsSync(file)) throw modelUnusable(`expected a mesh.json in ${modelDir}, found none`);
  const { name, revision, family, languages, defaults, limits, negativePrompt, loras } = JSON.parse(
    readFileSync(file, 'utf8'),
  ) as ModelInfo;
  return { name, revision, family, languages, defaults, limits, negativePrompt, loras };
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
