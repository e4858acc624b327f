import { expect, test } from 'vitest';
import { Code, Reason, StatusError } from '#core';
import { ExitCode } from './command.js';
import { describeFailure, exitCodeOf } from './failure.js';
import { createLogView } from './log-view.js';
import { fileNameOf, formatOfFile } from './pictures.js';
import { table } from './table.js';
import { noPaint } from './terminal.js';

const view = createLogView(noPaint);
const line = (process: string, fields: Record<string, unknown>) => ({ process, text: JSON.stringify(fields), fields });

test('log view: who, what, and what a person may want to know', () => {
  const fields = {
    level: 'info',
    time: 'x',
    msg: 'call ended',
    service: 'router',
    router_id: 'router-1',
    node_id: 'node-2',
    request_id: 'r-1',
    duration_ms: 12.3456,
    code: 'OK',
  };
  expect(view(line('router-1', fields))).toBe('router-1 call ended node_id=node-2 request_id=r-1 duration_ms=12.35 code=OK\n');
});

test('log view: engines are told from nodes; long names and digests are cut', () => {
  const fields = {
    level: 'info',
    msg: 'call ended',
    from: 'engine',
    method: '/diffusionmesh.v1.EngineService/Load',
    digest: 'ab'.repeat(32),
  };
  expect(view(line('node-1', fields))).toBe('node-1   engine: call ended method=Engine/Load digest=abababababab…\n');
});

test('log view: what is no JSON passes as it is', () => {
  expect(view({ process: 'node-1', text: 'Segmentation fault' })).toBe('node-1   Segmentation fault\n');
});

test('log view: nothing that callers can put into a line begins another one or reaches the terminal', () => {
  const evil = 'a\nrouter-1 all is well\u001b[2J\u009b';
  const shown = 'a␊router-1 all is well␛[2J\ufffd';
  expect(view(line('router-1', { level: 'info', msg: evil, request_id: evil, list: [evil] }))).toBe(
    `router-1 ${shown} request_id=${shown} list=["a\\nrouter-1 all is well\\u001b[2J\ufffd"]\n`,
  );
  expect(view({ process: 'node-1', text: evil })).toBe(`node-1   ${shown}\n`);
  expect(view({ process: 'nats', text: `[ERR] ${evil}` })).toBe(`nats     [ERR] ${shown}\n`);
});

test('a failure shows what the mesh said on one line, and our own on as many as it has', () => {
  const error = new StatusError({ code: Code.INTERNAL, reason: Reason.INTERNAL, message: 'a\nerror: b\u001b[2J' });
  expect(describeFailure(error, noPaint)).toBe('error: a␊error: b␛[2J (INTERNAL/INTERNAL)\n');
  expect(describeFailure(new Error('expected 2 nodes\n  node-1: \u001bx'), noPaint)).toBe('error: expected 2 nodes\n         node-1: ␛x\n');
});

test('log view: of NATS only the warnings', () => {
  expect(view({ process: 'nats', text: '[1] 2026/01/01 [INF] Server is ready' })).toBeUndefined();
  expect(view({ process: 'nats', text: '[1] 2026/01/01 [ERR] disk full' })).toContain('disk full');
});

test.each([
  ['a big, red Circle!', 'png', 'a-big-red-circle.png'],
  ['蓝色背景上的红色圆形', 'webp', '蓝色背景上的红色圆形.webp'],
  ['../../etc/passwd', 'jpeg', 'etc-passwd.jpg'],
  ['???', 'png', 'picture.png'],
] as const)('%j is saved as a file of its words', (prompt, format, name) => {
  expect(fileNameOf(prompt, format)).toBe(name);
});

test.each([
  ['a.png', 'png'],
  ['a.JPG', 'jpeg'],
  ['a.webp', 'webp'],
  ['a.gif', undefined],
  ['a', undefined],
])('%j asks for %s', (file, format) => {
  expect(formatOfFile(file)).toBe(format);
});

test('a table is aligned, Chinese included', () => {
  expect(
    table(
      ['A', 'B'],
      [
        ['圆', '1'],
        ['abcd', '2'],
      ],
    ),
  ).toBe('A     B\n圆    1\nabcd  2\n');
});

test('a deadline out of reach is no refusal for good, and says how far it was', () => {
  const error = new StatusError({
    code: Code.FAILED_PRECONDITION,
    reason: Reason.DEADLINE_UNREACHABLE,
    message: 'too late',
    metadata: { predicted_ms: '3200', left_ms: '900' },
  });
  expect(exitCodeOf(error)).toBe(ExitCode.UNAVAILABLE);
  expect(describeFailure(error, noPaint)).toContain('  try: it would take 3.2 s and has 900 ms: give it more time with --timeout');
});
