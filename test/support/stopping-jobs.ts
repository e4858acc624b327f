/**
 * A jobs replica that stands still at one step of a job, for tests that kill it there. STOP_AT names the step, such as
 * blobStored (services/jobs/run/attempt.ts), or blobStored:my-job for one job alone. It says so on stdout and goes on
 * with everything else; what has come to the step waits for the end.
 */
import { hostname } from 'node:os';
import { processHost, runProgram, systemClock, systemRandom } from '#runtime';
import { jobsProgram } from '../../services/jobs/program.js';

const [stopAt = '', stopJob] = (process.env.STOP_AT ?? '').split(':');

const reached = (step: string, jobId: string): Promise<void> => {
  if (step !== stopAt || (stopJob !== undefined && stopJob !== jobId)) return Promise.resolve();
  process.stdout.write(`${JSON.stringify({ stopped_at: step, job_id: jobId })}\n`);
  return new Promise(() => {});
};
const tools = { clock: systemClock, random: systemRandom, wallNow: Date.now };
await runProgram(jobsProgram({ hostName: hostname(), terminal: false, ...tools, reached }), processHost());
