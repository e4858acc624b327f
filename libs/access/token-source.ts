/** The token file as it changes: the tokens of the last good one, and an event for each reading. */
import type { Clock, Emit } from '#core';
import { FollowedFiles } from '#runtime';
import type { AccessEvent } from './events.js';
import type { Token } from './token.js';
import { parseTokenFile } from './token-file.js';

export interface TokenSourceOptions {
  readonly path: string;
  readonly clock: Clock;
  readonly emit: Emit<AccessEvent>;
  readonly onTokens: (tokens: readonly Token[]) => void;
}

const MAX_FILE_BYTES = 16 * 1024 * 1024;

export class TokenSource extends FollowedFiles {
  constructor({ path, clock, emit, onTokens }: TokenSourceOptions) {
    const take = (text: string): readonly string[] => {
      const parsed = parseTokenFile(text);
      if (!parsed.ok) return parsed.faults.map((fault) => `${path}: ${fault}`);
      onTokens(parsed.tokens);
      emit({ type: 'tokensLoaded', path, tokenCount: parsed.tokens.length });
      return [];
    };
    super({
      paths: [path],
      clock,
      maxBytes: MAX_FILE_BYTES,
      take: ([content]) => take(content?.toString('utf8') ?? ''),
      onRejected: (faults) => emit({ type: 'tokensRejected', path, faults }),
    });
  }
}
