import type { EnvReader } from '#runtime';

export type AdmissionConfig = ReturnType<typeof readAdmissionConfig>;

/** Who may submit jobs, how many, and how long they may wait. */
export function readAdmissionConfig(read: EnvReader) {
  const GiB = 1024 ** 3;
  const DAY_MS = 24 * 3_600_000;
  const config = {
    tokenFile: read.optionalString(
      'DMESH_JOBS_TOKEN_FILE',
      'Token file, the same as the routers’; none: everybody may submit, as one tenant.',
    ),
    bounds: {
      // A day of one busy GPU.
      maxWaitingCount: read.integer(
        'DMESH_JOBS_MAX_WAITING',
        20_000,
        { min: 1, max: 1_000_000 },
        'Jobs of one tenant that may wait at once.',
      ),
      // Some ten thousand pictures of 1024².
      maxStoredBytes: read.bytes(
        'DMESH_JOBS_MAX_STORED_BYTES',
        20 * GiB,
        'Pictures of one tenant that may be kept, those of its jobs that wait counted in; beyond it jobs are refused.',
      ),
    },
    expireAfterMs: read.durationMs(
      'DMESH_JOBS_EXPIRE_AFTER',
      DAY_MS,
      'A job not drawn so long after it was submitted ends as EXPIRED, unless it says otherwise.',
    ),
    maxExpireAfterMs: read.durationMs('DMESH_JOBS_MAX_EXPIRE_AFTER', 30 * DAY_MS, 'The longest that a job may say.'),
  };
  if (config.expireAfterMs > config.maxExpireAfterMs) {
    read.fault('DMESH_JOBS_EXPIRE_AFTER: expected at most DMESH_JOBS_MAX_EXPIRE_AFTER, got more');
  }
  return config;
}
