/** What a caller may show while it waits. Kinds arrive in this order; `queued` and `started` may repeat. */
export type Progress =
  /** The request is valid; `etaMs` is the predicted time until the picture is finished. */
  | { readonly kind: 'accepted'; readonly requestId: string; readonly seed: bigint; readonly etaMs: number }
  /** Every slot is busy; position 1 is next. */
  | { readonly kind: 'queued'; readonly position: number; readonly etaMs: number }
  /** A node has begun, with loading the model unless `loadMs` is 0; an attempt above 1 begins anew after a node was lost. */
  | { readonly kind: 'started'; readonly nodeId: string; readonly attempt: number; readonly loadMs: number }
  | { readonly kind: 'step'; readonly step: number; readonly total: number; readonly imageIndex: number }
  | { readonly kind: 'receiving'; readonly imageIndex: number; readonly receivedBytes: number; readonly totalBytes: number }
  /** The mesh could not take the request; it is sent once more after `delayMs`. */
  | { readonly kind: 'retrying'; readonly attempt: number; readonly delayMs: number; readonly reason: string };
