/** Pictures as files: what they are called, and a line that tells what was saved. */
import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import type { Generated, PictureRequest } from '#client';
import { printable } from '#core';
import type { Paint } from './terminal.js';

export const FORMATS = ['png', 'jpeg', 'webp'] as const satisfies readonly PictureRequest['format'][];
export type Format = (typeof FORMATS)[number];

export interface SavedPicture {
  readonly file: string;
  readonly mimeType: string;
  readonly width: number;
  readonly height: number;
  /** As text: it may need 64 bits. */
  readonly seed: string;
  readonly sizeBytes: number;
  /** A file of this name was there before. */
  readonly replaced: boolean;
}

const FORMAT_OF_EXTENSION: Readonly<Record<string, Format>> = { '.png': 'png', '.jpg': 'jpeg', '.jpeg': 'jpeg', '.webp': 'webp' };
const EXTENSION_OF_FORMAT: Readonly<Record<Format, string>> = { png: '.png', jpeg: '.jpg', webp: '.webp' };

/** The format a file name asks for; undefined when its extension is none of ours. */
export function formatOfFile(file: string): Format | undefined {
  return FORMAT_OF_EXTENSION[path.extname(file).toLowerCase()];
}

/** "a big red circle" becomes a-big-red-circle.png; Chinese stays as it is. */
export function fileNameOf(prompt: string, format: Format): string {
  return `${wordsOf(prompt)}${EXTENSION_OF_FORMAT[format]}`;
}

/** Names may have 255 bytes, of which numbers and the ending take some. */
const MAX_NAME_BYTES = 200;
const MAX_NAME_LENGTH = 60;
const GRAPHEMES = new Intl.Segmenter('en', { granularity: 'grapheme' });

/** A prompt as a part of file names, without an ending. Marks stay with the letters that they belong to. */
export function wordsOf(prompt: string): string {
  const words = prompt
    .toLowerCase()
    .normalize('NFC')
    .replace(/(?:[^\p{L}\p{N}\p{M}]\p{M}*)+|^\p{M}+/gu, '-')
    .replace(/^-+/, '');
  let name = '';
  let length = 0;
  for (const { segment } of GRAPHEMES.segment(words)) {
    if (++length > MAX_NAME_LENGTH || Buffer.byteLength(name + segment) > MAX_NAME_BYTES) break;
    name += segment;
  }
  return name.replace(/-+$/, '') || 'picture';
}

/** The ending of a file of this type. */
export function extensionOf(mimeType: string): string {
  return mimeType === 'image/jpeg' ? '.jpg' : mimeType === 'image/webp' ? '.webp' : '.png';
}

/** Several pictures are called out-1.png, out-2.png and so on. */
export async function savePictures(result: Generated, file: string): Promise<SavedPicture[]> {
  const { dir, name, ext } = path.parse(file);
  return Promise.all(
    result.images.map(async (image, index) => {
      const own = result.images.length === 1 ? file : path.join(dir, `${name}-${index + 1}${ext}`);
      const replaced = await savePicture(own, image.data);
      const { mimeType, width, height } = image;
      return { file: own, mimeType, width, height, seed: image.seed.toString(), sizeBytes: image.data.length, replaced };
    }),
  );
}

/** Missing folders are made. Whether another file had to go for it. */
export async function savePicture(file: string, data: Uint8Array): Promise<boolean> {
  await mkdir(path.dirname(file), { recursive: true });
  try {
    await writeFile(file, data, { flag: 'wx' });
    return false;
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw error;
    await writeFile(file, data);
    return true;
  }
}

/** What is said of a picture that took the place of another file. */
export const REPLACED = 'in place of an older file';

export function describePictures(result: Generated, saved: readonly SavedPicture[], paint: Paint): string {
  const { queuedMs, executingMs } = result.timings;
  const waited = queuedMs >= 1 ? `, waited ${Math.round(queuedMs)} ms` : '';
  const attempts = result.attempts > 1 ? `, attempt ${result.attempts}` : '';
  const by = paint('dim', `drawn by ${printable(result.nodeId)} in ${Math.round(executingMs)} ms${waited}${attempts}`);
  return saved
    .map((one) => {
      const instead = one.replaced ? paint('dim', `, ${REPLACED}`) : '';
      return `${paint('bold', one.file)}  ${one.width}×${one.height}  seed ${one.seed}  ${by}${instead}\n`;
    })
    .join('');
}

/** The same for programs. */
export function picturesAsJson(result: Generated, saved: readonly SavedPicture[]): object {
  const { requestId, nodeId, attempts, timings, used } = result;
  const { seed: _, ...parameters } = used;
  return { requestId, files: saved, nodeId, attempts, ...timings, used: parameters };
}
