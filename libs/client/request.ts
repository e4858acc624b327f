/**
 * From what a caller writes to what the wire carries. Two things are pinned here when absent, so
 * that a repeat of the request is recognised and draws the same picture: its id and its seed.
 */
import { generation } from '#contracts';
import type { Random } from '#core';

/** Absent fields take the model's defaults; the answer's `used` says what those were. */
export interface PictureRequest {
  readonly prompt: string;
  /** May be absent while the mesh serves exactly one model. */
  readonly model?: string | undefined;
  readonly negativePrompt?: string | undefined;
  /** Pixels. */
  readonly width?: number | undefined;
  /** Pixels. */
  readonly height?: number | undefined;
  readonly steps?: number | undefined;
  readonly guidanceScale?: number | undefined;
  /** Equal seeds draw equal pictures; picture i of several uses seed + i. */
  readonly seed?: bigint | number | undefined;
  readonly imageCount?: number | undefined;
  /** Strength 0 is the bare model, 1 (the default) the adapter as trained. */
  readonly loras?: readonly { readonly name: string; readonly strength?: number | undefined }[] | undefined;
  /** Default png. */
  readonly format?: 'png' | 'jpeg' | 'webp' | undefined;
  /** Default normal. */
  readonly priority?: 'high' | 'normal' | 'low' | undefined;
  /** Names the request in logs; made up when absent. */
  readonly requestId?: string | undefined;
}

const { ImageFormat, Priority } = generation;
const FORMATS = { png: ImageFormat.PNG, jpeg: ImageFormat.JPEG, webp: ImageFormat.WEBP };
const PRIORITIES = { high: Priority.HIGH, normal: Priority.NORMAL, low: Priority.LOW };

export function wireRequest(request: PictureRequest, random: Random): generation.GenerateRequest {
  return generation.GenerateRequest.fromPartial({
    requestId: request.requestId ?? madeUpId('c', random),
    model: request.model ?? '',
    prompt: request.prompt,
    negativePrompt: request.negativePrompt ?? '',
    width: request.width ?? 0,
    height: request.height ?? 0,
    steps: request.steps ?? 0,
    guidanceScale: request.guidanceScale,
    seed: request.seed === undefined ? random32(random) : BigInt(request.seed),
    imageCount: request.imageCount ?? 0,
    loras: request.loras?.map((lora) => ({ ...lora })) ?? [],
    format: request.format === undefined ? ImageFormat.UNSPECIFIED : FORMATS[request.format],
    priority: request.priority === undefined ? Priority.UNSPECIFIED : PRIORITIES[request.priority],
  });
}

/** 32 bits, because torch's CPU generator reads no more. */
function random32(random: Random): bigint {
  return BigInt(Math.floor(random() * 2 ** 32));
}

/** `kind`: c of a call, j of a job, b of a batch. */
export function madeUpId(kind: 'c' | 'j' | 'b', random: Random): string {
  const part = () => random32(random).toString(36).padStart(7, '0');
  return `${kind}-${part()}${part()}`;
}
