/** Reads the files of a model folder, each checked against the digest that mesh.json gives for it. */
import { createHash } from 'node:crypto';
import { open, readFile } from 'node:fs/promises';
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

/**
 * `file`: relative to the folder. `scratch`: a buffer to read into if the file is as long as it, since
 * freed weights linger until the garbage collector comes by.
 *
 * FAILED_PRECONDITION/MODEL_UNUSABLE when the file cannot be read or was altered.
 */
export async function readModelFile(model: ModelPackage, file: string, scratch?: Buffer): Promise<Buffer> {
  const bytes = await readInto(path.join(model.dir, file), scratch).catch((cause) => {
    throw modelUnusable(`expected to read ${file} of model ${model.info.name}, could not`, cause);
  });
  const expected = model.digests.get(file);
  const digest = createHash('sha256').update(bytes).digest('hex');
  if (expected !== undefined && digest !== expected) {
    throw modelUnusable(`${file} of model ${model.info.name}: expected SHA-256 ${expected}, got ${digest}`);
  }
  return bytes;
}

async function readInto(file: string, scratch: Buffer | undefined): Promise<Buffer> {
  if (!scratch) return readFile(file);
  const handle = await open(file);
  try {
    if ((await handle.stat()).size !== scratch.length) return await handle.readFile();
    for (let at = 0; at < scratch.length; ) {
      const { bytesRead } = await handle.read(scratch, at);
      if (bytesRead === 0) throw new RangeError(`${file} ended after ${at} bytes`);
      at += bytesRead;
    }
    return scratch;
  } finally {
    await handle.close();
  }
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
