/** The embedded engine as a process: settings, socket, worker thread. */
import { lstat, unlink } from 'node:fs/promises';
import { totalmem } from 'node:os';
import { engine } from '#contracts';
import { Server } from '#grpc';
import { Lifecycle, part, processHost, runProgram, systemClock, watchParent } from '#runtime';
import { type EngineConfig, parseConfig } from './config.js';
import type { EngineEvent } from './events.js';
import { jsonLog, type Level, logEvent } from './log.js';
import { EngineService } from './service.js';
import { ComputeWorker } from './worker/worker.js';

/** Four pictures of 2048² worth of noise, and room. */
const MAX_REQUEST_BYTES = 64 * 1024 * 1024;
/** A step of the embedded model takes milliseconds; what takes longer is cut. */
const STOP_GRACE_MS = 2000;

const host = processHost();
const logFrom = (minLevel: Level) => jsonLog({ minLevel, write: host.stdout, epochMs: () => Date.now() });
let log = logFrom('info');
let listensOn = '';
const emit = (event: EngineEvent) => logEvent(log, event);

/** process.exit waits for a thread inside onnxruntime by aborting the process; this is cleaner and as quick. */
const exitHard = () => process.kill(process.pid, 'SIGKILL');

async function build(config: EngineConfig): Promise<Lifecycle> {
  const worker = new ComputeWorker({
    threadCount: config.threadCount,
    adapterSetCount: config.adapterSetCount,
    onDied: (error) => {
      log('error', 'the compute thread died', { error: error.message });
      process.exit(1);
    },
  });
  const service = new EngineService({
    worker,
    clock: systemClock,
    emit,
    memory: () => ({ usedBytes: process.memoryUsage.rss(), totalBytes: totalmem() }),
  });
  const server = new Server({ clock: systemClock, emit, maxRequestBytes: MAX_REQUEST_BYTES });
  server.add(engine.EngineServiceService, service.handlers);
  let stopWatching = () => {};
  const { parentPid, socketPath } = config;
  log = logFrom(config.logLevel);
  listensOn = `unix:${socketPath}`;
  return new Lifecycle(
    [
      part('worker', {
        start: () => worker.started(),
        drain: () => service.stop(),
        close: async () => {
          // Reached with a job still inside onnxruntime only when the grace is over.
          if (service.busy) exitHard();
        },
      }),
      part('server', {
        start: async () => {
          await removeStaleSocket(socketPath);
          await server.listen(listensOn);
        },
        drain: () => Promise.all([server.drain(), service.stop()]).then(() => {}),
        close: () => server.close(),
      }),
      part('parent', {
        start: async () => {
          stopWatching = watchParent(parentPid, () => {
            emit({ type: 'parentGone', parentPid });
            exitHard();
          });
        },
        close: async () => stopWatching(),
      }),
    ],
    { clock: systemClock, graceMs: STOP_GRACE_MS },
  );
}

/** An engine that was killed leaves its socket behind. Anything else at that path stays, and listening fails. */
async function removeStaleSocket(path: string): Promise<void> {
  const found = await lstat(path).catch(() => undefined);
  if (found?.isSocket()) await unlink(path);
}

await runProgram<EngineConfig>(
  {
    name: 'engine-onnx',
    summary: 'draws pictures with the Z-Image pipeline on onnxruntime; started by a node',
    envPrefix: 'DMESH_ENGINE_',
    parse: parseConfig,
    build,
    onReady: () => log('info', 'ready', { grpc: listensOn }),
    onFailed: (message, error) => log('error', message, { error: error instanceof Error ? error.message : String(error) }),
  },
  host,
);
