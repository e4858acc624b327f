/** What should be drawn, as options say it; the same for every command that asks for pictures. */
import type { PictureRequest } from '#client';
import type { Arguments } from './arguments.js';

export const REQUEST_OPTIONS = {
  seed: { type: 'string' },
  steps: { type: 'string' },
  size: { type: 'string' },
  lora: { type: 'string', multiple: true },
  format: { type: 'string' },
  count: { type: 'string' },
  model: { type: 'string' },
  negative: { type: 'string' },
  guidance: { type: 'string' },
  priority: { type: 'string' },
} as const;

/** All but the prompt and the format. Only what cannot be said to the mesh is refused here; ranges are the mesh's own to judge. */
export function readRequest(read: Arguments): Omit<PictureRequest, 'prompt' | 'format'> {
  const size = read.parsed('size', 'WIDTHxHEIGHT such as 128x128', (text) => {
    const match = /^(\d{1,5})[x×](\d{1,5})$/.exec(text);
    return match ? { width: Number(match[1]), height: Number(match[2]) } : undefined;
  });
  return {
    ...size,
    model: read.text('model'),
    negativePrompt: read.text('negative'),
    seed: read.seed(),
    steps: read.integer('steps', { min: 1, max: 10_000 }),
    imageCount: read.integer('count', { min: 1, max: 10_000 }),
    guidanceScale: read.parsed('guidance', 'a number such as 0 or 4.5', (text) => (/^\d+(\.\d+)?$/.test(text) ? Number(text) : undefined)),
    priority: read.choice('priority', ['high', 'normal', 'low']),
    loras: read.list('lora').flatMap((text) => {
      const match = /^([^=]+)(?:=(-?\d+(?:\.\d+)?))?$/.exec(text);
      if (!match?.[1]) read.fault(`--lora: expected NAME or NAME=STRENGTH such as neon=0.8, got ${JSON.stringify(text)}`);
      return match?.[1] ? [{ name: match[1], ...(match[2] === undefined ? {} : { strength: Number(match[2]) }) }] : [];
    }),
  };
}
