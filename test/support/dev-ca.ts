/** Certificates for a test, made by the script that operators have; removed with `drop`. */
import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';

const SCRIPT = path.resolve(import.meta.dirname, '../../deploy/tls/make-dev-ca.mjs');

export interface DevCa {
  readonly dir: string;
  /** Path of a file, such as "router.pem". */
  readonly file: (name: string) => string;
  /** Makes all certificates anew, with the CAs that are there. */
  readonly renew: () => Promise<void>;
  readonly drop: () => Promise<void>;
}

export async function makeDevCa(): Promise<DevCa> {
  const dir = await mkdtemp(path.join(tmpdir(), 'dmesh-ca-'));
  const make = async () => void (await promisify(execFile)(process.execPath, [SCRIPT, dir]));
  await make();
  return { dir, file: (name) => path.join(dir, name), renew: make, drop: () => rm(dir, { recursive: true }) };
}
