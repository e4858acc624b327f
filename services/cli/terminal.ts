/** Where a command writes. Results go to stdout, everything about getting there to stderr. */
export interface Terminal {
  readonly out: (text: string) => void;
  readonly err: (text: string) => void;
  /** Whether stderr is a terminal, so that a line may be drawn again. */
  readonly interactive: boolean;
  readonly columnCount: number;
  readonly paint: Paint;
  /** Present when stdout is a terminal, which may then be drawn on as a whole: its size now. */
  readonly screen?: () => ScreenSize;
}

export interface ScreenSize {
  readonly columnCount: number;
  readonly rowCount: number;
}

export type Colour = 'bold' | 'dim' | 'red' | 'green' | 'yellow' | 'blue' | 'magenta' | 'cyan';
export type Paint = (colour: Colour, text: string) => string;

const CODES: Record<Colour, number> = { bold: 1, dim: 2, red: 31, green: 32, yellow: 33, blue: 34, magenta: 35, cyan: 36 };

export const noPaint: Paint = (_, text) => text;
export const ansiPaint: Paint = (colour, text) => `\u001b[${CODES[colour]}m${text}\u001b[0m`;

/** Back to the start of the line and empty it. */
export const CLEAR_LINE = '\r\u001b[K';
/** Cursor to the top, everything below it emptied. */
export const CLEAR_SCREEN = '\u001b[H\u001b[J';
