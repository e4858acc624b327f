import type { TlsFile } from './material.js';

/** What happens to the watched files of a process. */
export type TlsEvent =
  /** The files were read and hold for new connections. */
  | {
      readonly type: 'tlsLoaded';
      readonly paths: readonly string[];
      /** When the first certificate of each file expires. */
      readonly expiries: readonly { readonly file: TlsFile; readonly atEpochMs: number }[];
    }
  /** The files cannot be used; the last good ones hold. */
  | { readonly type: 'tlsRejected'; readonly paths: readonly string[]; readonly faults: readonly string[] };
