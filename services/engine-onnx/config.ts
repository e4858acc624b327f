/** What can be set from outside; the node sets it for the engine it starts. */
import type { EnvReader } from '#runtime';
import { LEVELS, type Level } from './log.js';

export interface EngineConfig {
  /** Absolute path of the unix socket to listen on. */
  readonly socketPath: string;
  readonly threadCount: number;
  readonly adapterSetCount: number;
  /** 0: nobody to outlive. */
  readonly parentPid: number;
  readonly logLevel: Level;
}

/** The kernel's limit on a unix socket's path (sun_path), less the final zero. */
const MAX_SOCKET_PATH_BYTES = 107;

export function parseConfig(read: EnvReader): EngineConfig {
  const socketPath = read.string('DMESH_ENGINE_SOCKET', '/tmp/dmesh-engine.sock', 'Absolute path of the unix socket to listen on.');
  if (!socketPath.startsWith('/') || Buffer.byteLength(socketPath) > MAX_SOCKET_PATH_BYTES) {
    read.fault(
      `DMESH_ENGINE_SOCKET: expected an absolute path of at most ${MAX_SOCKET_PATH_BYTES} bytes, got ${JSON.stringify(socketPath)}`,
    );
  }
  return read.done({
    socketPath,
    threadCount: read.integer('DMESH_ENGINE_THREADS', 1, { min: 1, max: 256 }, 'Threads onnxruntime may use for one picture.'),
    adapterSetCount: read.integer(
      'DMESH_ENGINE_LORA_CACHE',
      2,
      { min: 1, max: 64 },
      'LoRA sets kept merged; each takes as much memory as the transformer.',
    ),
    parentPid: read.integer(
      'DMESH_ENGINE_PARENT_PID',
      0,
      { min: 0, max: 2 ** 31 - 1 },
      'Process to outlive by no more than a second; 0: none.',
    ),
    logLevel: read.choice('DMESH_LOG_LEVEL', 'info', LEVELS, 'Least level that is logged.'),
  });
}
