/**
 * A whole terminal, for as long as it is needed: drawn over in place without flicker, and given back
 * as it was, whatever happens meanwhile.
 */
import type { ScreenSize } from './terminal.js';

/** The alternate screen, so that what was on the terminal comes back; no cursor meanwhile. */
const ENTER = '\u001b[?1049h\u001b[?25l';
const LEAVE = '\u001b[?25h\u001b[?1049l';
const HOME = '\u001b[H';
const REST_OF_LINE = '\u001b[K';
const REST_OF_SCREEN = '\u001b[J';

export interface Screen {
  /** Asked at each drawing: people resize windows. */
  readonly size: () => ScreenSize;
  readonly draw: (lines: readonly string[]) => void;
}

export async function withScreen<T>(
  parts: { out: (text: string) => void; size: () => ScreenSize },
  use: (screen: Screen) => Promise<T>,
): Promise<T> {
  const { out, size } = parts;
  out(ENTER);
  try {
    return await use({ size, draw: (lines) => out(`${HOME}${lines.map((line) => line + REST_OF_LINE).join('\r\n')}${REST_OF_SCREEN}`) });
  } finally {
    out(LEAVE);
  }
}
