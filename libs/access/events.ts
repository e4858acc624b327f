/** What happens to a watched token file. */
export type AccessEvent =
  /** The file was read and holds from now on. */
  | { readonly type: 'tokensLoaded'; readonly path: string; readonly tokenCount: number }
  /** The file cannot be used; the last good one holds. */
  | { readonly type: 'tokensRejected'; readonly path: string; readonly faults: readonly string[] };
