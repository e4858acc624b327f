import { expect, test } from 'vitest';
import { printable } from './printable.js';

test.each([
  ['a big red circle', 'a big red circle'],
  ['蓝色 été 👩‍🎨', '蓝色 été 👩‍🎨'],
  ['a\nforged line', 'a␊forged line'],
  ['a\r\nb', 'a␍␊b'],
  ['\u001b[2J\u001b[31mred', '␛[2J␛[31mred'],
  ['a\tb', 'a b'],
  ['bell\u0007, nul\u0000, del\u007f', 'bell␇, nul␀, del␡'],
  ['\u009b2J', '\ufffd2J'],
  ['abc\u202egnp.exe\u2066', 'abc\ufffdgnp.exe\ufffd'],
  ['a\u2028b\u2029c', 'a\ufffdb\ufffdc'],
])('%j is shown as %j', (text, shown) => {
  expect(printable(text)).toBe(shown);
});
