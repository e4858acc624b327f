/**
 * A real S3 server (versitygw) over a folder, with one bucket. Its program is looked for on PATH and in .cache/bin;
 * where Go is at hand it is built there, once. Otherwise the tests that need it are skipped, and say so.
 */
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { accessSync, constants, mkdirSync } from 'node:fs';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { vi } from 'vitest';
import { packageRoot } from '#runtime';

/** What the SDK finds in its environment. */
export const S3_CREDENTIALS = { AWS_ACCESS_KEY_ID: 'test-key', AWS_SECRET_ACCESS_KEY: 'test-secret' } as const;
export const S3_BUCKET = 'pictures';

const SOURCE = 'github.com/versity/versitygw/cmd/versitygw@v1.8.0';
const binDir = path.join(packageRoot, '.cache/bin');
/** It is a minute's work; of a slow machine's, several. */
const BUILD_TIMEOUT_MS = 300_000;

/** Path of the program, or why there is none. */
export async function findS3Server(): Promise<{ readonly path: string } | { readonly missing: string }> {
  const there = findProgram('versitygw');
  if (there !== undefined) return { path: there };
  const go = findProgram('go');
  if (go === undefined) return { missing: 'versitygw is not on PATH, nor is Go to build it with' };
  mkdirSync(binDir, { recursive: true });
  try {
    // Not the blocking kind: the runner takes a worker that is silent for a minute for lost.
    await promisify(execFile)(go, ['install', SOURCE], { env: { ...process.env, GOBIN: binDir }, timeout: BUILD_TIMEOUT_MS });
  } catch (error) {
    return { missing: `Go could not build versitygw: ${error instanceof Error ? error.message : error}` };
  }
  return { path: path.join(binDir, 'versitygw') };
}

function findProgram(name: string): string | undefined {
  const dirs = [...(process.env.PATH ?? '').split(path.delimiter), binDir, '/usr/local/go/bin'];
  return dirs.map((dir) => path.join(dir, name)).find(isProgram);
}

function isProgram(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

export interface S3Server {
  readonly endpoint: string;
  /** Where the bucket's objects lie, as files named by their keys. */
  readonly bucketDir: string;
  /** SIGSTOP: connections stay open and nobody answers. Resolves when that is so. */
  pause(): Promise<void>;
  resume(): void;
  close(): Promise<void>;
}

/** Resolves when it answers. */
export async function startS3Server(program: string): Promise<S3Server> {
  const dir = await mkdtemp(path.join(tmpdir(), 'dmesh-s3-'));
  const bucketDir = path.join(dir, 'objects', S3_BUCKET);
  const sidecar = path.join(dir, 'sidecar'); // not every file system has extended attributes
  await mkdir(bucketDir, { recursive: true });
  await mkdir(sidecar);
  const port = await freePort();
  const { AWS_ACCESS_KEY_ID: key, AWS_SECRET_ACCESS_KEY: secret } = S3_CREDENTIALS;
  const args = ['--quiet', '--keep-alive', '--port', `127.0.0.1:${port}`, '--access', key, '--secret', secret];
  const child = spawn(program, [...args, 'posix', '--sidecar', sidecar, path.dirname(bucketDir)], { stdio: 'ignore' });
  const exited = once(child, 'exit');
  const close = async () => {
    if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL');
    await exited;
    await rm(dir, { recursive: true, force: true });
  };
  const endpoint = `http://127.0.0.1:${port}`;
  try {
    await vi.waitFor(() => fetch(endpoint), { timeout: 20_000, interval: 20 });
  } catch (error) {
    await close();
    throw error;
  }
  const pause = async () => {
    child.kill('SIGSTOP');
    const answered = () => fetch(endpoint, { signal: AbortSignal.timeout(500) }).then(Boolean, () => false);
    while (await answered());
  };
  return { endpoint, bucketDir, pause, resume: () => child.kill('SIGCONT'), close };
}

/** The server cannot choose one and tell. */
async function freePort(): Promise<number> {
  const probe = createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const address = probe.address();
  probe.close();
  await once(probe, 'close');
  if (address === null || typeof address === 'string') throw new Error('expected a port');
  return address.port;
}
