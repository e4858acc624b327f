import { expect, test } from 'vitest';
import { ConfigError, EnvReader } from '#runtime';
import { readBlobConfig } from './config.js';

function parse(env: Record<string, string>) {
  const read = new EnvReader(env, 'DMESH_JOBS_');
  return read.done(readBlobConfig(read));
}

test('readBlobConfig() keeps pictures in a folder unless told otherwise', () => {
  expect(parse({})).toMatchObject({ kind: 'file', archiveAfterMs: 0, orphanAfterMs: 24 * 3_600_000, file: { archiveDir: undefined } });
});

test.each([
  [{ DMESH_JOBS_STORE: 's3' }, 'DMESH_JOBS_S3_BUCKET: expected together with DMESH_JOBS_STORE=s3, got none'],
  [
    { DMESH_JOBS_STORE: 's3', DMESH_JOBS_S3_BUCKET: 'b', DMESH_JOBS_S3_ARCHIVE_PREFIX: 'jobs/old/' },
    'DMESH_JOBS_S3_ARCHIVE_PREFIX: expected neither to begin with the other, got jobs/old/ and DMESH_JOBS_S3_PREFIX jobs/',
  ],
  [
    { DMESH_JOBS_STORE: 's3', DMESH_JOBS_S3_BUCKET: 'b', DMESH_JOBS_S3_ENDPOINT: 'minio:9000' },
    'DMESH_JOBS_S3_ENDPOINT: expected a URL such as http://minio:9000, got "minio:9000"',
  ],
  [{ DMESH_JOBS_S3_LINK_TTL: '200h' }, 'DMESH_JOBS_S3_LINK_TTL: expected from 1s to 168h, which is as long as S3 allows, got 720000000 ms'],
  [{ DMESH_JOBS_SWEEP_EVERY: '0s' }, 'DMESH_JOBS_SWEEP_EVERY: expected at least 1s, got 0 ms'],
  [{ DMESH_JOBS_ORPHAN_AFTER: '30ms' }, 'DMESH_JOBS_ORPHAN_AFTER: expected at least 1s, got 30 ms'],
])('readBlobConfig(%o) is refused', (env, fault) => {
  expect(() => parse(env)).toThrow(new ConfigError([fault]));
});
