/** A request on its way through the router: what it asks for, and what has happened to it so far. */
import type { generation } from '#contracts';
import type { StatusError } from '#core';
import type { Waiting, Work } from '#scheduling';

export interface Ticket extends Waiting {
  readonly requestId: string;
  /** Complete: defaults filled, seed pinned. The same bytes go to every node that tries it. */
  readonly request: generation.GenerateRequest;
  /** What the caller chose itself: '' and undefined when it did not. */
  readonly asked: { readonly requestId: string; readonly seed: bigint | undefined };
  /** Somebody asks in the tenant's name: no request of its own. */
  readonly actedFor: boolean;
  readonly work: Work;
  /** Against the model's defaults; what may take longer than these. */
  readonly sizeRatio: number;
  /** The revision of the model it must be drawn with; '' takes any. */
  readonly revision: string;
  /** Names what it needs of a node: equal for requests that cost the same and are served by the same nodes. */
  readonly kind: string;
  /** Names of the LoRAs it needs. */
  readonly loraNames: readonly string[];
  /** Node incarnations that failed it; never asked again. */
  readonly tried: Set<string>;
  /** Failures so far that count against the request itself. */
  poisonCount: number;
  /** Times it was really run. */
  attempts: number;
  /** Milliseconds spent waiting for a slot, over all attempts. */
  queuedMs: number;
  /** The node that answered it. */
  servedBy: string | undefined;
  lastError: StatusError | undefined;
  /** Told when its turn changes. Absent for callers who do not watch. */
  readonly onQueued: ((position: number, etaMs: number) => void) | undefined;
}

/** Equal for requests that any node treats alike. */
export function kindOf({ kind, tried }: Ticket): string {
  return tried.size === 0 ? kind : [kind, ...tried].join('\n');
}

/** Equal for requests that the same nodes could take, whatever they cost there. Callers choose sizes: there are far fewer of these than kinds. */
export function needsOf({ work, revision, loraNames, tried }: Ticket): string {
  return [work.model, revision, loraNames.join('\t'), ...tried].join('\n');
}
