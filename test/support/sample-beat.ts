/** A beat as a node with one GPU and one model sends it, about 1 KB. */
import type { Beat } from '#bus';

export function sampleBeat(changes: Partial<Beat> = {}): Beat {
  return {
    nodeId: 'gpu0',
    incarnation: '1700000000000-abc123',
    seq: 1,
    address: '127.0.0.1:50061',
    zone: 'zone-a',
    engine: { name: 'onnx', version: '1.30.0', state: 'ready', determinismClass: 'onnx-1.30-cpu-fp32', restartCount: 0 },
    models: [sampleModel],
    slotCount: 1,
    busyCount: 0,
    running: [],
    draining: false,
    gpu: {
      uuid: 'GPU-6a2b5d1c-0f0e-4b52-9b0e-5f3a9d1c7e44',
      name: 'NVIDIA H200',
      memoryTotalBytes: 150_754_820_096,
      memoryUsedBytes: 23_622_320_128,
      memoryPeakBytes: 31_138_512_896,
      utilisationRatio: 0.97,
      temperatureCelsius: 61,
    },
    completedCount: 1200,
    failedCount: 3,
    ...changes,
  };
}

const sampleModel: Beat['models'][number] = {
  name: 'z-image-tiny',
  revision: '3f2a9c1b',
  family: 'z-image',
  languages: ['en', 'zh'],
  defaults: { width: 128, height: 128, steps: 8, guidanceScale: 0 },
  limits: {
    sizeMultiple: 16,
    minWidth: 64,
    maxWidth: 256,
    minHeight: 64,
    maxHeight: 256,
    minSteps: 1,
    maxSteps: 50,
    minGuidanceScale: 0,
    maxGuidanceScale: 0,
    maxImageCount: 4,
    maxPromptTokens: 96,
    maxLoras: 2,
    minLoraStrength: -2,
    maxLoraStrength: 2,
  },
  negativePrompt: false,
  loras: [{ name: 'neon-outline', description: 'Glowing outlines on a dark ground' }],
};
