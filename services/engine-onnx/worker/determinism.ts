/**
 * When may two engines promise each other the same bytes? When everything that touches the numbers
 * is the same: this build, onnxruntime's, the processor features its kernels choose by, the weights.
 * The thread count is not part of it: onnxruntime's CPU kernels give the same bits for any.
 */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { arch, cpus, platform } from 'node:os';
import type { ModelPackage } from '#model-package';
import { onnxruntimeVersion } from '../pipeline/onnx.js';
import { ENGINE_VERSION } from '../version.js';

/** Instruction sets that onnxruntime has kernels of its own for. */
const KERNEL_FEATURES = /^(?:avx|avx2|fma|f16c|avx_vnni|avx512\w+|amx_\w+|asimd\w*|sve\w*|i8mm|bf16)$/;
const CLASS_LENGTH = 16;

export function determinismClass(model: ModelPackage): string {
  const { name, revision } = model.info;
  const parts = [ENGINE_VERSION, onnxruntimeVersion, platform(), arch(), ...processorFeatures(), 'float32', name, revision, model.digest];
  return `onnx-cpu-${createHash('sha256').update(JSON.stringify(parts)).digest('hex').slice(0, CLASS_LENGTH)}`;
}

function processorFeatures(): string[] {
  try {
    const line = /^(?:flags|Features)\s*:(.*)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1] ?? '';
    const features = line.split(/\s+/).filter((feature) => KERNEL_FEATURES.test(feature));
    if (features.length > 0) return features.sort();
  } catch {
    // Not Linux: the model's name says enough.
  }
  return [cpus()[0]?.model ?? 'unknown'];
}
