/**
 * Text of others for a person's eyes: on one line, and with nothing in it that moves a cursor, changes
 * a colour or turns the reading direction. What was there stays to be seen: ␊ for a line feed, ␛ for
 * an escape. For programs JSON does this by itself.
 */
const UNPRINTABLE = /[\p{Cc}\p{Bidi_Control}\p{Zl}\p{Zp}]/gu;
/** Unicode's pictures of the 32 control characters of ASCII begin here. */
const PICTURES = 0x2400;
const DELETE = 0x7f;

export function printable(text: string): string {
  return text.replace(UNPRINTABLE, (character) => {
    const code = character.codePointAt(0) ?? 0;
    if (code < 0x20) return character === '\t' ? ' ' : String.fromCodePoint(PICTURES + code);
    return code === DELETE ? '␡' : '\ufffd';
  });
}
