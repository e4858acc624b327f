/** Reads the files of a model folder, each checked against the digest that mesh.json gives for it. */
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { type ModelPackage, modelUnusable } from '#model-package';

/** What this engine needs beside what every engine does. */
export const ENGINE_FILES = [
  'onnx/text_encoder.onnx',
  'onnx/transformer.onnx',
  'onnx/vae_decoder.onnx',
  'text_encoder/model.safetensors',
  'transformer/diffusion_pytorch_model.safetensors',
  'vae/diffusion_pytorch_model.safetensors',
] as const;

/** `file`: relative to the folder. FAILED_PRECONDITION/MODEL_UNUSABLE when it cannot be read or was altered. */
export async function readModelFile(model: ModelPackage, file: string): Promise<Buffer> {
  const bytes = await readFile(path.join(model.dir, file)).catch((cause) => {
    throw modelUnusable(`expected to read ${file} of model ${model.info.name}, could not`, cause);
  });
  const expected = model.digests.get(file);
  const digest = createHash('sha256').update(bytes).digest('hex');
  if (expected !== undefined && digest !== expected) {
    throw modelUnusable(`${file} of model ${model.info.name}: expected SHA-256 ${expected}, got ${digest}`);
  }
  return bytes;
}

export async function readModelJson(model: ModelPackage, file: string): Promise<Record<string, unknown>> {
  const bytes = await readModelFile(model, file);
  try {
    const json: unknown = JSON.parse(bytes.toString('utf8'));
    if (typeof json === 'object' && json !== null) return json as Record<string, unknown>;
  } catch (cause) {
    throw modelUnusable(`${file} of model ${model.info.name}: expected JSON`, cause);
  }
  throw modelUnusable(`${file} of model ${model.info.name}: expected a JSON object`);
}
