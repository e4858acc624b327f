/** The baseline: nginx with grpc_pass and its defaults, one worker, upstream connections kept alive. */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { systemClock } from '#runtime';
import { freePort } from './free-port.js';

export interface Nginx {
  readonly address: string;
  readonly pid: number;
  /** Such as "1.22.1". */
  readonly version: string;
  stop(): Promise<void>;
}

/** Undefined where nginx is not installed. `policy` is a line of the upstream block, such as "least_conn;". */
export async function startNginx(upstreams: readonly string[], policy = ''): Promise<Nginx | undefined> {
  const version = await nginxVersion();
  if (version === undefined) return undefined;
  const dir = await mkdtemp(path.join(tmpdir(), 'dmesh-nginx-'));
  const port = await freePort();
  await writeFile(path.join(dir, 'nginx.conf'), configuration({ dir, port, upstreams, policy }));
  const command = ['-p', dir, '-c', path.join(dir, 'nginx.conf'), '-e', path.join(dir, 'error.log')];
  const child = spawn('nginx', command, { stdio: 'ignore' });
  const exited = new Promise((resolve) => child.once('exit', resolve));
  const stop = async () => {
    child.kill('SIGTERM');
    await exited;
    await rm(dir, { recursive: true, force: true });
  };
  try {
    await listening(port, child);
  } catch (error) {
    await stop();
    throw error;
  }
  return { address: `127.0.0.1:${port}`, pid: child.pid ?? 0, version, stop };
}

/**
 * What is set and is not a default: paths, so that no root is needed; one process, so that its CPU is
 * one number; and connections that live as long as the run on both sides, as the router's do.
 */
function configuration(options: { dir: string; port: number; upstreams: readonly string[]; policy: string }): string {
  const { dir, port, upstreams, policy } = options;
  const temp = (name: string) => `${name}_temp_path ${dir}/${name};`;
  return `
    daemon off; master_process off; worker_processes 1; pid ${dir}/pid; error_log ${dir}/error.log;
    events { worker_connections 4096; }
    http {
      access_log ${dir}/access.log;
      ${['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(temp).join(' ')}
      keepalive_requests 1000000;
      upstream nodes { ${policy} ${upstreams.map((address) => `server ${address};`).join(' ')} keepalive 64; keepalive_requests 1000000; }
      server { listen 127.0.0.1:${port} http2; location / { grpc_pass grpc://nodes; grpc_read_timeout 600s; } }
    }`;
}

async function nginxVersion(): Promise<string | undefined> {
  try {
    // It says so on stderr: "nginx version: nginx/1.22.1".
    const { stdout, stderr } = await promisify(execFile)('nginx', ['-v']);
    return /nginx\/([\d.]+)/.exec(stdout + stderr)?.[1] ?? 'unknown';
  } catch {
    return undefined;
  }
}

async function listening(port: number, child: ChildProcess): Promise<void> {
  for (let attempt = 0; attempt < 100; attempt++) {
    if (child.exitCode !== null || child.pid === undefined) throw new Error(`expected nginx to run, it ended with ${child.exitCode}`);
    if (await accepts(port)) return;
    await systemClock.sleep(50);
  }
  throw new Error('expected nginx to listen within 5 s');
}

function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1')
      .once('connect', () => {
        socket.destroy();
        resolve(true);
      })
      .once('error', () => resolve(false));
  });
}
