/** What happens in an engine, for its log. */
import type { CallEnded } from '#grpc';
import type { Drawn } from './pipeline/draw.js';

export type EngineEvent =
  /** Load has answered; requests are taken. */
  | {
      readonly type: 'modelLoaded';
      readonly model: string;
      readonly revision: string;
      readonly determinismClass: string;
      readonly loadMs: number;
    }
  | { readonly type: 'modelUnloaded'; readonly model: string; readonly revision: string }
  /** A request ended well. */
  | ({ readonly type: 'pictureDrawn'; readonly requestId: string; readonly imageCount: number } & Drawn)
  /** The process that started this one is gone, so this one leaves as well. */
  | { readonly type: 'parentGone'; readonly parentPid: number }
  | CallEnded;
