/** Which GPUs this machine has, as `nvidia-smi -L` tells it; none where there is no nvidia-smi. */
import { execFile } from 'node:child_process';

export interface LocalGpu {
  readonly index: number;
  readonly name: string;
  /** Such as GPU-8c8e7d5a-…; stays the same whatever the order of the devices. */
  readonly uuid: string;
}

export function detectGpus(): Promise<LocalGpu[]> {
  return new Promise((resolve) => {
    // A driver in trouble can hang nvidia-smi; a mesh on the CPU is better than none.
    execFile('nvidia-smi', ['-L'], { timeout: 10_000 }, (error, stdout) => resolve(error ? [] : parseGpus(stdout)));
  });
}

/** Lines such as "GPU 0: NVIDIA H200 (UUID: GPU-1b2c…)"; the indented MIG lines are no devices of their own. */
export function parseGpus(listing: string): LocalGpu[] {
  return [...listing.matchAll(/^GPU (\d+): (.+) \(UUID: ([^)]+)\)\s*$/gm)].map((match) => ({
    index: Number(match[1]),
    name: match[2] ?? '',
    uuid: match[3] ?? '',
  }));
}
