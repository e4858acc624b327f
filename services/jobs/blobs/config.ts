import type { EnvReader } from '#runtime';

const GiB = 1024 ** 3;
const HOUR_MS = 3_600_000;
const MAX_LINK_MS = 168 * HOUR_MS;

export type BlobConfig = ReturnType<typeof readBlobConfig>;

/** Where pictures of jobs are kept, for how long in the first place, and how they are looked after. */
export function readBlobConfig(read: EnvReader) {
  const config = {
    kind: read.choice(
      'DMESH_JOBS_STORE',
      'file',
      ['file', 's3'],
      'Where pictures are kept: in a folder that all replicas share, or in a bucket.',
    ),
    file: {
      dir: read.string('DMESH_JOBS_STORE_DIR', 'dmesh-jobs', 'Folder of the pictures; made where it is missing.'),
      archiveDir: read.optionalString(
        'DMESH_JOBS_STORE_ARCHIVE_DIR',
        'Folder of the archive, such as on a slower disk; none: .archive in DMESH_JOBS_STORE_DIR.',
      ),
      // A few hundred pictures of 1024²: what runs when the last job is refused still finds room.
      reserveBytes: read.bytes('DMESH_JOBS_STORE_RESERVE', 1 * GiB, 'Jobs are refused (STORE_FULL) that would leave less room than this.'),
    },
    s3: {
      endpoint: read.optionalString('DMESH_JOBS_S3_ENDPOINT', 'URL of the S3 server, such as http://minio:9000; none: AWS.'),
      region: read.string('DMESH_JOBS_S3_REGION', 'us-east-1', 'Region of the bucket.'),
      bucket: read.optionalString('DMESH_JOBS_S3_BUCKET', 'Bucket of the pictures; it must exist. Needed with DMESH_JOBS_STORE=s3.'),
      prefix: read.string('DMESH_JOBS_S3_PREFIX', 'jobs/', 'What the keys of pictures begin with.'),
      archivePrefix: read.string('DMESH_JOBS_S3_ARCHIVE_PREFIX', 'archive/', 'What the keys of archived pictures begin with.'),
      // Others answer only after hours.
      archiveClass: read.choice(
        'DMESH_JOBS_S3_ARCHIVE_CLASS',
        'STANDARD',
        ['STANDARD', 'STANDARD_IA', 'ONEZONE_IA', 'INTELLIGENT_TIERING', 'GLACIER_IR'],
        'Storage class of archived pictures.',
      ),
      // Servers other than AWS seldom have a host name for each bucket.
      addressing: read.choice(
        'DMESH_JOBS_S3_ADDRESSING',
        'auto',
        ['auto', 'path', 'host'],
        'Where the bucket stands in URLs; auto: in the path where DMESH_JOBS_S3_ENDPOINT is set.',
      ),
      // Tens of MB on a poor line.
      timeoutMs: read.durationMs('DMESH_JOBS_S3_TIMEOUT', 60_000, 'Longest time for one picture there or back, its repetitions included.'),
      linkTtlMs: read.durationMs('DMESH_JOBS_S3_LINK_TTL', HOUR_MS, 'How long a link to a picture is good (Get with with_urls).'),
    },
    archiveAfterMs: read.durationMs(
      'DMESH_JOBS_ARCHIVE_AFTER',
      0,
      'Pictures this old move to the archive, which is read all the same; 0: never.',
    ),
    // A day: time to notice a wrong NATS_URL or a lost stream before its pictures are gone, too.
    orphanAfterMs: read.durationMs('DMESH_JOBS_ORPHAN_AFTER', 24 * HOUR_MS, 'Pictures this old that no job names are removed.'),
    sweepEveryMs: read.durationMs('DMESH_JOBS_SWEEP_EVERY', HOUR_MS, 'How often the store is looked through for them.'),
    // Each holds a picture of a few MB in memory until its caller has it all.
    readingCount: read.integer(
      'DMESH_JOBS_DOWNLOADS',
      32,
      { min: 1, max: 10_000 },
      'Pictures held for downloads at once, half of them for one tenant; more wait.',
    ),
  };
  checkS3(read, config.kind, config.s3);
  for (const [name, gotMs] of [
    ['DMESH_JOBS_S3_TIMEOUT', config.s3.timeoutMs],
    ['DMESH_JOBS_SWEEP_EVERY', config.sweepEveryMs],
    // A picture is there before the record that names it.
    ['DMESH_JOBS_ORPHAN_AFTER', config.orphanAfterMs],
  ] as const) {
    if (gotMs < 1000) read.fault(`${name}: expected at least 1s, got ${gotMs} ms`);
  }
  return config;
}

interface S3Settings {
  readonly bucket: string | undefined;
  readonly endpoint: string | undefined;
  readonly prefix: string;
  readonly archivePrefix: string;
  readonly linkTtlMs: number;
}

function checkS3(read: EnvReader, kind: 'file' | 's3', { bucket, endpoint, prefix, archivePrefix, linkTtlMs }: S3Settings): void {
  if (kind === 's3' && bucket === undefined) read.fault('DMESH_JOBS_S3_BUCKET: expected together with DMESH_JOBS_STORE=s3, got none');
  if (endpoint !== undefined && !(/^https?:/.test(endpoint) && URL.canParse(endpoint))) {
    read.fault(`DMESH_JOBS_S3_ENDPOINT: expected a URL such as http://minio:9000, got ${JSON.stringify(endpoint)}`);
  }
  if (prefix.startsWith(archivePrefix) || archivePrefix.startsWith(prefix)) {
    read.fault(
      `DMESH_JOBS_S3_ARCHIVE_PREFIX: expected neither to begin with the other, got ${archivePrefix} and DMESH_JOBS_S3_PREFIX ${prefix}`,
    );
  }
  if (linkTtlMs < 1000 || linkTtlMs > MAX_LINK_MS) {
    read.fault(`DMESH_JOBS_S3_LINK_TTL: expected from 1s to 168h, which is as long as S3 allows, got ${linkTtlMs} ms`);
  }
}
