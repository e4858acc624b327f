/**
 * How a picture comes about, top to bottom: the prompt becomes caption features, noise becomes
 * latents in steps, latents become pixels. Numerically Z-Image's own pipeline (float32).
 */
import { Code, Reason, StatusError } from '#core';
import { latentShape } from '#model-package';
import { flags, floats, type Graph, type Inputs, integers } from './onnx.js';
import { fromTokens, type LatentGrid, padded, tokenCountOf, toTokens } from './patches.js';
import { isBlank, isFinitePicture, toRgb } from './picture.js';
import type { EncodePrompt } from './prompt.js';
import { captionTable, imageTable } from './rotary.js';
import { eulerSteps } from './schedule.js';
import type { ModelSettings } from './settings.js';

export interface Parts {
  readonly settings: ModelSettings;
  readonly maxPromptTokens: number;
  readonly encodePrompt: EncodePrompt;
  readonly textEncoder: Graph;
  readonly transformer: Pick<Graph, 'run'>;
  readonly decoder: Graph;
}

export interface Drawing {
  readonly prompt: string;
  readonly width: number;
  readonly height: number;
  readonly steps: number;
  /** Initial noise, one a picture. */
  readonly noises: readonly Float32Array[];
}

export interface Progress {
  /** Throws to stop the work; asked before every forward pass. */
  readonly checkpoint: () => void;
  /** Before every step: takes as long as the request is paused. */
  readonly mayPause: () => Promise<void>;
  readonly onStep: (step: { step: number; total: number; imageIndex: number; stepMs: number }) => void;
  readonly onImage: (image: Picture) => void;
  /** Monotonic milliseconds; stands still while paused. */
  readonly now: () => number;
}

export interface Picture {
  readonly imageIndex: number;
  readonly width: number;
  readonly height: number;
  /** Interleaved, 8 bits a value. */
  readonly rgb: Uint8ClampedArray<ArrayBuffer>;
  /** What was decoded. */
  readonly latents: Float32Array;
}

export interface Drawn {
  readonly encodeMs: number;
  readonly denoiseMs: number;
  readonly decodeMs: number;
  readonly promptTokens: number;
  readonly forwardCount: number;
}

interface Caption {
  readonly tokenCount: number;
  /** With its padding. */
  readonly paddedCount: number;
  readonly inputs: Inputs;
}

export async function draw(parts: Parts, drawing: Drawing, progress: Progress): Promise<Drawn> {
  const { now } = progress;
  const startedAt = now();
  const caption = await readCaption(parts, drawing.prompt, progress.checkpoint);
  const encodeMs = now() - startedAt;
  let denoiseMs = 0;
  let decodeMs = 0;
  for (const [imageIndex, noise] of drawing.noises.entries()) {
    const denoiseAt = now();
    const latents = await denoise(parts, { drawing, caption, noise, imageIndex }, progress);
    const decodeAt = now();
    denoiseMs += decodeAt - denoiseAt;
    progress.checkpoint();
    const rgb = await decode(parts, latents, drawing);
    decodeMs += now() - decodeAt;
    progress.onImage({ imageIndex, width: drawing.width, height: drawing.height, rgb, latents });
  }
  const forwardCount = drawing.noises.length * drawing.steps;
  return { encodeMs, denoiseMs, decodeMs, promptTokens: caption.tokenCount, forwardCount };
}

async function readCaption(parts: Parts, prompt: string, checkpoint: () => void): Promise<Caption> {
  const ids = parts.encodePrompt(prompt);
  if (ids.length > parts.maxPromptTokens) throw promptTooLong(ids.length, parts.maxPromptTokens);
  checkpoint();
  const embeds = await parts.textEncoder.run({ input_ids: integers(ids, [1, ids.length]) });
  const paddedCount = padded(ids.length);
  const { captionWidth, rotary } = parts.settings;
  const features = new Float32Array(paddedCount * captionWidth);
  features.set(embeds);
  const table = captionTable(rotary, paddedCount);
  const tableDims = [paddedCount, table.cos.length / paddedCount];
  return {
    tokenCount: ids.length,
    paddedCount,
    inputs: {
      caption_features: floats(features, [1, paddedCount, captionWidth]),
      caption_mask: flags(new Uint8Array(paddedCount).fill(1, 0, ids.length), [1, paddedCount]),
      caption_cos: floats(table.cos, tableDims),
      caption_sin: floats(table.sin, tableDims),
    },
  };
}

interface Canvas {
  readonly drawing: Drawing;
  readonly caption: Caption;
  readonly noise: Float32Array;
  readonly imageIndex: number;
}

/** Noise to latents. Works on tokens throughout, as an Euler step does not care about their order. */
async function denoise(parts: Parts, canvas: Canvas, progress: Progress): Promise<Float32Array> {
  const { drawing, caption, noise, imageIndex } = canvas;
  const grid = gridOf(drawing, parts.settings.latentChannels);
  const tokenCount = tokenCountOf(grid);
  const tokens = toTokens(noise, grid);
  const paddedCount = padded(tokenCount);
  const table = imageTable(parts.settings.rotary, {
    rows: grid.rows / 2,
    columns: grid.columns / 2,
    paddedCount,
    captionCount: caption.paddedCount,
  });
  const tableDims = [paddedCount, table.cos.length / paddedCount];
  const inputs: Inputs = {
    ...caption.inputs,
    image_tokens: floats(tokens, [1, paddedCount, tokens.length / paddedCount]), // shares `tokens`, which every step updates
    image_mask: flags(new Uint8Array(paddedCount).fill(1, 0, tokenCount), [1, paddedCount]),
    image_cos: floats(table.cos, tableDims),
    image_sin: floats(table.sin, tableDims),
  };
  for (const [i, { time, sigmaDelta }] of eulerSteps(drawing.steps, parts.settings.shift).entries()) {
    await progress.mayPause();
    progress.checkpoint();
    const startedAt = progress.now();
    const velocity = await parts.transformer.run({ ...inputs, timestep: floats(Float32Array.of(time), [1]) });
    // The model predicts from noise to picture, the schedule runs the other way.
    for (let k = 0; k < tokens.length; k++) tokens[k] = (tokens[k] ?? 0) - Math.fround(sigmaDelta * (velocity[k] ?? 0));
    progress.onStep({ step: i + 1, total: drawing.steps, imageIndex, stepMs: progress.now() - startedAt });
  }
  return fromTokens(tokens, grid);
}

async function decode(parts: Parts, latents: Float32Array, drawing: Drawing): Promise<Uint8ClampedArray<ArrayBuffer>> {
  if (!isFinitePicture(latents)) {
    throw new StatusError({ code: Code.INTERNAL, reason: Reason.NAN_OUTPUT, message: 'the latents hold values that are not finite' });
  }
  const { vaeScaling, vaeOffset, latentChannels } = parts.settings;
  const { rows, columns } = gridOf(drawing, latentChannels);
  const scaled = latents.map((value) => Math.fround(value / vaeScaling) + vaeOffset);
  const image = await parts.decoder.run({ latents: floats(scaled, [1, latentChannels, rows, columns]) });
  if (!isFinitePicture(image)) {
    throw new StatusError({ code: Code.INTERNAL, reason: Reason.NAN_OUTPUT, message: 'the decoder gave values that are not finite' });
  }
  const rgb = toRgb(image);
  if (isBlank(rgb)) {
    throw new StatusError({ code: Code.INTERNAL, reason: Reason.BLANK_OUTPUT, message: 'the picture is one flat colour' });
  }
  return rgb;
}

function gridOf(drawing: Drawing, channels: number): LatentGrid {
  const [, , rows, columns] = latentShape(drawing.width, drawing.height).dims;
  return { channels, rows, columns };
}

function promptTooLong(tokenCount: number, limit: number): StatusError {
  return new StatusError({
    code: Code.INVALID_ARGUMENT,
    reason: Reason.PROMPT_TOO_LONG,
    message: `prompt: expected at most ${limit} tokens with its template, got ${tokenCount}`,
    violations: [{ field: 'prompt', description: `expected at most ${limit} tokens with its template, got ${tokenCount}` }],
    metadata: { tokens: String(tokenCount), limit: String(limit) },
  });
}
