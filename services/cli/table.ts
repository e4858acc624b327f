/** Columns as wide as their widest cell; wide characters count two, so that Chinese stays aligned. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const all = [head, ...rows];
  const widths = head.map((_, column) => Math.max(...all.map((row) => widthOf(row[column] ?? ''))));
  const line = (row: readonly string[]) =>
    widths
      .map((width, column) => (row[column] ?? '') + ' '.repeat(width - widthOf(row[column] ?? '')))
      .join('  ')
      .trimEnd();
  return `${all.map(line).join('\n')}\n`;
}

/** The part of a line that fits; colours are ended where it is cut. */
export function clip(line: string, columnCount: number): string {
  if (widthOf(line) <= columnCount) return line;
  let width = 0;
  let end = 0;
  for (const [piece] of line.matchAll(PIECE)) {
    width += widthOf(piece);
    if (width > columnCount) break;
    end += piece.length;
  }
  return `${line.slice(0, end)}${line.includes('\u001b') ? '\u001b[0m' : ''}`;
}

/** The same for words, which show that they were cut. */
export function shortened(text: string, columnCount: number): string {
  return widthOf(text) <= columnCount ? text : `${clip(text, columnCount - 1)}…`;
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: a colour code or one character
const PIECE = /\u001b\[\d+m|./gsu;
// biome-ignore lint/suspicious/noControlCharactersInRegex: colour codes take no room on the screen
const INVISIBLE = /\u001b\[\d+m/g;
const WIDE = /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6]/;

export function widthOf(text: string): number {
  let width = 0;
  for (const character of text.replace(INVISIBLE, '')) width += WIDE.test(character) ? 2 : 1;
  return width;
}
