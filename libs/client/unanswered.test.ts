import { expect, test } from 'vitest';
import { Code, Reason, StatusError } from '#core';
import { inPlainWords } from './unanswered.js';

const asked = { address: 'mesh:50051', timeoutMs: 1 };
const unreached = { code: Code.UNAVAILABLE, reason: Reason.CONNECT_FAILED };
const late = { code: Code.DEADLINE_EXCEEDED, reason: Reason.DEADLINE };

test.each([
  [
    { ...unreached, message: 'No connection established. Last error: Error: connect ECONNREFUSED 127.0.0.1:1. Resolution note: ' },
    'no connection to mesh:50051: connection refused',
  ],
  [
    { ...unreached, message: 'No connection established. Last error: Error: write EPROTO. Resolution note: ' },
    'no connection to mesh:50051: write EPROTO',
  ],
  [{ ...unreached, message: 'No connection established. Last error: null. Resolution note: ' }, 'no connection to mesh:50051'],
  [
    { ...unreached, message: 'Name resolution failed for target dns:mesh:50051' },
    'no connection to mesh:50051: the name of the host is not known',
  ],
  [{ ...late, message: 'Deadline exceeded after 0.003s,name resolution: 0.001s' }, 'no answer from mesh:50051 within 1 ms'],
  [{ ...late, message: "the caller's deadline passed" }, "the caller's deadline passed"],
  [{ ...unreached, message: 'no connection to 10.0.0.7:50052' }, 'no connection to 10.0.0.7:50052'],
])('%j', (error, text) => {
  expect(inPlainWords(new StatusError(error), asked)).toMatchObject({ code: error.code, reason: error.reason, message: text });
});

test('a time is said in its unit', () => {
  const error = new StatusError({ ...late, message: 'Deadline exceeded after 90s' });
  expect(inPlainWords(error, { address: 'a:1', timeoutMs: 90_000 }).message).toBe('no answer from a:1 within 90 s');
});
