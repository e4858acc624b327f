import { expect, test } from 'vitest';
import { parseLogLine } from './log-line.js';

test.each([
  [
    '{"level":"warn","msg":"hot","celsius":90,"time":1,"service":"e"}',
    'stdout',
    { level: 'warn', message: 'hot', fields: { celsius: 90 } },
  ],
  ['{"message":"m","level":30}', 'stdout', { level: 'info', message: 'm', fields: {} }],
  ['{not json', 'stdout', { level: 'info', message: '{not json', fields: {} }],
  ['Segmentation fault', 'stderr', { level: 'warn', message: 'Segmentation fault', fields: {} }],
] as const)('parseLogLine reads %s', (line, stream, expected) => {
  expect(parseLogLine(line, stream)).toEqual(expected);
});
