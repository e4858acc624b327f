/**
 * Does the embedded model draw what captions say? engine-onnx, as the process a node would start,
 * draws captions that were kept out of training; the judge names what each picture shows by rules on
 * its pixels; a share says how often that is what the caption asked for.
 */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { latentShape } from '#model-package';
import { torchNoise } from '#noise';
import { packageRoot, thisProcess } from '#runtime';
import { judge, type Scenes } from '../../libs/embedded-model/judge.js';
import { type EngineProcess, startEngine } from '../support/engine-process.js';

/** One caption kept out of training, and what a picture of it must show. */
export interface HeldOut {
  readonly caption: string;
  readonly language: string;
  readonly colour: string;
  readonly background: string;
  readonly shape: string;
  readonly position: string;
  readonly seed: number;
}

export const QUESTIONS = ['colour', 'background', 'shape', 'position'] as const;
export type Question = (typeof QUESTIONS)[number];
/** Shares of 1. */
export type Shares = Readonly<Record<Question, number>>;

/** What the model promises, for each language. */
export const TARGETS: Shares = { colour: 0.95, background: 0.98, shape: 0.85, position: 0.95 };

export const EMBEDDED_MODEL_DIR = path.join(packageRoot, 'libs/embedded-model/z-image-tiny');
const ENGINE = path.join(packageRoot, 'dist/services/engine-onnx/main.js');

export interface Marks {
  readonly language: string;
  readonly right: ReadonlySet<Question>;
}

interface Drawable {
  readonly name: string;
  readonly width: number;
  readonly height: number;
  readonly steps: number;
}

export function heldOutCaptions(): HeldOut[] {
  return readJson('libs/embedded-model/heldout.json') as HeldOut[];
}

/** Draws and marks every caption, on so many engine processes at once. `onMarked` hears how many are done. */
export async function markCaptions(options: {
  modelDir: string;
  captions: readonly HeldOut[];
  engineCount: number;
  onMarked?: (count: number) => void;
}): Promise<Marks[]> {
  const { captions, engineCount, modelDir, onMarked } = options;
  const scenes = readJson('libs/embedded-model/scenes.json') as Scenes;
  const engines: EngineProcess[] = [];
  const marks: Marks[] = [];
  const left = captions.values();
  try {
    for (let i = 0; i < engineCount; i++) engines.push(await startEngine({ command: [thisProcess.nodePath, ENGINE] }));
    await Promise.all(
      engines.map(async (engine) => {
        const model = await loadModel(engine, modelDir);
        for (const caption of left) {
          marks.push(mark(caption, await draw(engine, model, caption), model, scenes));
          onMarked?.(marks.length);
        }
      }),
    );
  } finally {
    for (const engine of engines) await engine.close();
  }
  return marks;
}

export function sharesOf(marks: readonly Marks[]): Shares {
  const share = (question: Question) => Number((marks.filter(({ right }) => right.has(question)).length / marks.length).toFixed(4));
  return { colour: share('colour'), background: share('background'), shape: share('shape'), position: share('position') };
}

async function loadModel(engine: EngineProcess, modelDir: string): Promise<Drawable> {
  const { model } = await engine.load(modelDir);
  if (!model?.defaults) throw new Error(`expected a model with defaults in ${modelDir}`);
  const { width, height, steps } = model.defaults;
  return { name: model.name, width, height, steps };
}

async function draw(engine: EngineProcess, model: Drawable, { caption, seed }: HeldOut): Promise<Uint8Array> {
  const { name, width, height, steps } = model;
  const noise = torchNoise(BigInt(seed), latentShape(width, height).elementCount);
  const latents = new Uint8Array(noise.buffer, noise.byteOffset, noise.byteLength);
  const items = [{ seed: BigInt(seed), latents }];
  const request = { requestId: `heldout-${seed}`, model: name, revision: '', prompt: caption, negativePrompt: '', width, height, steps };
  let picture: Uint8Array | undefined;
  // To the end: leaving the loop earlier would be a cancel, and the engine busy with it for a moment.
  for await (const { event } of engine.generate({ ...request, guidanceScale: 0, items, loras: [] })) {
    if (event?.$case === 'image') picture = event.value.data;
  }
  if (!picture) throw new Error(`expected a picture of ${JSON.stringify(caption)}, got none`);
  return picture;
}

function mark(caption: HeldOut, rgb: Uint8Array, { width, height }: Drawable, scenes: Scenes): Marks {
  const verdict = judge(rgb, width, height, scenes);
  return { language: caption.language, right: new Set(QUESTIONS.filter((question) => verdict[question] === caption[question])) };
}

function readJson(file: string): unknown {
  return JSON.parse(readFileSync(path.join(packageRoot, file), 'utf8'));
}
