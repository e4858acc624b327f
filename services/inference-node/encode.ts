/**
 * Raw RGB as a file. sharp works on libuv's threads, so the node goes on serving meanwhile. PNG takes
 * the fast end of the compression scale: at 1024² the slow end costs more than the denoising steps it
 * follows. The same pixels give the same bytes.
 */
import sharp from 'sharp';
import { generation } from '#contracts';
import type { Rgb } from './engine/collect.js';

export interface EncodedImage {
  readonly data: Buffer;
  readonly mimeType: string;
  readonly width: number;
  readonly height: number;
}

const PNG = { compressionLevel: 2, adaptiveFiltering: false } as const;
const JPEG = { quality: 92, chromaSubsampling: '4:4:4' } as const;
const WEBP = { quality: 90 } as const;

// One picture is one job: parallelism comes from pictures, and a cache of inputs that never repeat is waste.
sharp.concurrency(1);
sharp.cache(false);

export async function encodeImage(rgb: Rgb, format: generation.ImageFormat): Promise<EncodedImage> {
  const { width, height } = rgb;
  const image = sharp(rgb.data, { raw: { width, height, channels: 3 } });
  switch (format) {
    case generation.ImageFormat.JPEG:
      return { data: await image.jpeg(JPEG).toBuffer(), mimeType: 'image/jpeg', width, height };
    case generation.ImageFormat.WEBP:
      return { data: await image.webp(WEBP).toBuffer(), mimeType: 'image/webp', width, height };
    default:
      return { data: await image.png(PNG).toBuffer(), mimeType: 'image/png', width, height };
  }
}
