import { expect, test } from 'vitest';
import { Code } from '#core';
import { ManualClock } from '../../test/support/manual-clock.js';
import { Rates } from './rates.js';

const GENERATE = '/diffusionmesh.v1.ImageGenerationService/Generate';
const STREAM = '/diffusionmesh.v1.ImageGenerationService/GenerateStream';

test('answers and errors are pictures asked for; callers who left are neither', () => {
  const rates = new Rates(new ManualClock());
  rates.callEnded({ method: GENERATE, code: Code.OK });
  rates.callEnded({ method: STREAM, code: Code.OK });
  rates.callEnded({ method: STREAM, code: Code.UNAVAILABLE });
  rates.callEnded({ method: STREAM, code: Code.CANCELLED });
  rates.callEnded({ method: '/diffusionmesh.v1.MeshAdminService/ListNodes', code: Code.OK });
  rates.executed({ actualMs: 1500 });
  expect(rates.read()).toEqual({ answersPerSecond: 2, errorsPerSecond: 1, gpuSecondsPerSecond: 1.5 });
});
