/**
 * What does the driver say about the GPU? Asked through nvidia-smi, a process of its own, because a
 * driver in trouble must not take the node with it; answers are kept and read from memory. A machine
 * without nvidia-smi simply has no figures.
 */
import { execFile } from 'node:child_process';
import type { GpuReport } from '#bus';
import type { Clock } from '#core';

const FIELDS = 'uuid,name,memory.total,memory.used,utilization.gpu,temperature.gpu';
const QUERY_TIMEOUT_MS = 10_000;
const MIB = 1024 * 1024;

/** `gpu`: UUID or index. Null when there is no nvidia-smi or no such GPU. */
export function queryGpu(gpu: string): Promise<GpuReport | null> {
  const args = [`--id=${gpu}`, `--query-gpu=${FIELDS}`, '--format=csv,noheader,nounits'];
  return new Promise((resolve) => {
    execFile('nvidia-smi', args, { timeout: QUERY_TIMEOUT_MS }, (error, stdout) => resolve(error ? null : parseGpuReport(stdout)));
  });
}

/** A line such as "GPU-1b2c…, NVIDIA H200, 143771, 1024, 37, 41"; figures a driver does not know ("[N/A]") are 0. */
export function parseGpuReport(line: string): GpuReport | null {
  const [uuid, name, memoryTotal, memoryUsed, utilisation, temperature] = line.trim().split(/\s*,\s*/);
  if (!uuid || !name || temperature === undefined) return null;
  return {
    uuid,
    name,
    memoryTotalBytes: figure(memoryTotal) * MIB,
    memoryUsedBytes: figure(memoryUsed) * MIB,
    utilisationRatio: figure(utilisation) / 100,
    temperatureCelsius: figure(temperature),
  };
}

function figure(text: string | undefined): number {
  const value = Number(text);
  return Number.isFinite(value) ? value : 0;
}

/** Keeps the latest report of one GPU, and the most memory seen in use. */
export class GpuWatch {
  #latest: GpuReport | null = null;
  #peakBytes = 0;
  #cancel = () => {};
  #stopped = false;

  constructor(
    private readonly gpu: string,
    private readonly options: { readonly clock: Clock; readonly intervalMs: number; readonly query: typeof queryGpu },
  ) {}

  get latest(): GpuReport | null {
    return this.#latest;
  }

  /** Resolves after the first answer. */
  async start(): Promise<void> {
    const report = await this.options.query(this.gpu);
    this.#peakBytes = Math.max(this.#peakBytes, report?.memoryUsedBytes ?? 0);
    this.#latest = report && { ...report, memoryPeakBytes: this.#peakBytes };
    if (!this.#stopped) this.#cancel = this.options.clock.schedule(this.options.intervalMs, () => void this.start());
  }

  stop(): void {
    this.#stopped = true;
    this.#cancel();
  }
}
