/** What happens in the store of pictures. */
import type { StatusError } from '#core';

export type BlobEvent =
  /** It was asked for something, by a job, a download or the sweep, and has answered. */
  {
    readonly type: 'storeCalled';
    readonly place: 'live' | 'archive';
    readonly operation: 'put' | 'read' | 'delete' | 'link';
    readonly name: string;
    /** Undefined: it did. That a picture is missing in one place is no failure where the other has it. */
    readonly failure: StatusError | undefined;
    /** Of the picture; 0 where none came or went. */
    readonly sizeBytes: number;
    readonly durationMs: number;
  };
