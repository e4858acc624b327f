/** dmesh as a person uses it: the built program, as a process, against a real mesh. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import sharp from 'sharp';
import { expect, test } from 'vitest';
import { LocalMesh } from '#local-mesh';
import { useShared } from '../support/shared.js';

const MAIN = path.resolve(import.meta.dirname, '../../dist/services/cli/main.js');
const PNG_MAGIC = '89504e470d0a1a0a';

let dir = '';
let mesh: LocalMesh;
useShared(
  async () => {
    dir = await mkdtemp(path.join(tmpdir(), 'dmesh-cli-'));
    mesh = await LocalMesh.start({ nodes: 2 });
  },
  async () => {
    await mesh?.stop();
    await rm(dir, { recursive: true, force: true });
  },
);

interface Ran {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

function start(args: readonly string[], env: Record<string, string> = {}): ChildProcess {
  return spawn(process.execPath, [MAIN, ...args], { cwd: dir, env: { ...process.env, TMPDIR: dir, DMESH_ROUTER: mesh.address, ...env } });
}

async function dmesh(args: readonly string[], env: Record<string, string> = {}): Promise<Ran> {
  const child = start(args, env);
  let out = '';
  let err = '';
  child.stdout?.on('data', (chunk) => {
    out += chunk;
  });
  child.stderr?.on('data', (chunk) => {
    err += chunk;
  });
  const [code] = await once(child, 'close');
  return { code, out, err };
}

/** Everything the process has written once `text` is among it. */
function untilSaid(child: ChildProcess, text: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let said = '';
    const take = (chunk: Buffer) => {
      said += chunk;
      if (said.includes(text)) resolve(said);
    };
    child.stdout?.on('data', take);
    child.stderr?.on('data', take);
    child.once('close', () => reject(new Error(`expected ${JSON.stringify(text)}, it ended having said:\n${said}`)));
  });
}

test('generate draws a file; the same seed draws the same bytes', async () => {
  const first = await dmesh(['generate', 'a big red circle on a blue background', '-o', 'one.png', '--seed', '7']);
  expect(first).toMatchObject({ code: 0, err: '' });
  expect(first.out).toMatch(/^one\.png {2}128×128 {2}seed 7 {2}drawn by node-\d in \d+ ms/);
  await dmesh(['generate', 'a big red circle on a blue background', '-o', 'two.png', '--seed', '7']);
  const bytes = await readFile(path.join(dir, 'one.png'));
  expect(bytes.subarray(0, 8).toString('hex')).toBe(PNG_MAGIC);
  expect((await readFile(path.join(dir, 'two.png'))).equals(bytes)).toBe(true);
});

test('size, format, steps and count reach the engine', async () => {
  const args = ['--size', '96x64', '--steps', '4', '--count', '2', '--seed', '3', '--json', '-o', 'small.webp'];
  const { code, out } = await dmesh(['generate', 'a yellow star', ...args]);
  expect(code).toBe(0);
  const { files, used } = JSON.parse(out);
  expect(files.map((one: { file: string; seed: string }) => [one.file, one.seed])).toEqual([
    ['small-1.webp', '3'],
    ['small-2.webp', '4'],
  ]);
  expect(used).toMatchObject({ width: 96, height: 64, steps: 4 });
  expect(await sharp(path.join(dir, 'small-1.webp')).metadata()).toMatchObject({ format: 'webp', width: 96, height: 64 });
});

test('every faulty field is named, exit code 2', async () => {
  const { code, err } = await dmesh(['generate', 'p', '--size', '7x4096', '--steps', '9999']);
  expect(code).toBe(2);
  for (const option of ['--size (width)', '--size (height)', '--steps']) expect(err).toContain(option);
});

test('an unknown model says what there is, exit code 2', async () => {
  const { code, err } = await dmesh(['generate', 'p', '--model', 'nothing-of-the-kind']);
  expect(code).toBe(2);
  expect(err).toContain('nothing-of-the-kind');
  expect(err).toContain('z-image-tiny');
});

test('no router: exit code 3 and how to start one', async () => {
  const { code, err } = await dmesh(['generate', 'p', '--router', '127.0.0.1:1']);
  expect(code).toBe(3);
  expect(err).toContain('dmesh up');
});

test('models and nodes', async () => {
  expect((await dmesh(['models'])).out).toMatch(/^z-image-tiny .* 2 nodes\n.*64 tokens.*en, zh\n/);
  const { out } = await dmesh(['nodes']);
  expect(out).toMatch(/node-1 +alive +closed +onnx ready +0\/1/);
  expect(out).toMatch(/node-2 +alive +closed +onnx ready +0\/1/);
  expect(JSON.parse((await dmesh(['nodes', '--json'])).out)).toHaveLength(2);
});

test('drain takes a node out of work, resume puts it back; nodes --watch sees both', async () => {
  const watch = start(['nodes', '--watch']);
  try {
    await untilSaid(watch, 'node-2');
    const drained = untilSaid(watch, 'draining');
    expect(await dmesh(['drain', 'node-2'])).toMatchObject({ code: 0, out: 'node-2 drains\n' });
    await drained;
    const drawn = await Promise.all(
      [1, 2, 3].map((seed) => dmesh(['generate', 'a cube', '-o', `${seed}.png`, '--json', '--seed', String(seed)])),
    );
    expect(drawn.map(({ out }) => JSON.parse(out).nodeId)).toEqual(['node-1', 'node-1', 'node-1']);
    expect(await dmesh(['resume', 'node-2'])).toMatchObject({ code: 0, out: 'node-2 works again\n' });
  } finally {
    watch.kill('SIGINT');
    const [code] = await once(watch, 'close');
    expect(code).toBe(0);
  }
  expect(await dmesh(['drain', 'node-77'])).toMatchObject({ code: 2 });
});

test('up says where everything is, draws, survives a dead node, and leaves nothing behind after Ctrl-C', async () => {
  const up = start(['up', '--nodes', '1', '--router-port', '0', '--draw']);
  const said = await untilSaid(up, 'drew "a big red circle');
  expect(said).toContain('grpcurl -plaintext');
  const router = /--router (\S+)/.exec(said)?.[1] ?? '';
  const nodePid = Number(/kill -9 (\d+)/.exec(said)?.[1]);
  const picture = await readFile(path.join(dir, 'images/a-big-red-circle-on-a-blue-background.png'));
  expect(picture.subarray(0, 8).toString('hex')).toBe(PNG_MAGIC);

  process.kill(nodePid, 'SIGKILL');
  await untilSaid(up, 'it starts again');
  const again = await dmesh(['generate', 'a cube', '-o', 'again.png', '--router', router]);
  expect(again).toMatchObject({ code: 0 });

  up.kill('SIGINT');
  const [code] = await once(up, 'close');
  expect(code).toBe(0);
  expect(await dmesh(['nodes', '--router', router])).toMatchObject({ code: 3 });
});

test('what up started ends when up itself is killed', async () => {
  const up = start(['up', '--nodes', '1', '--router-port', '0']);
  const said = await untilSaid(up, 'Ctrl-C drains');
  const nodePid = Number(/kill -9 (\d+)/.exec(said)?.[1]);
  expect(isAlive(nodePid)).toBe(true);
  up.kill('SIGKILL');
  await expect.poll(() => isAlive(nodePid), { timeout: 15_000 }).toBe(false);
  const router = /--router (\S+)/.exec(said)?.[1] ?? '';
  expect(await dmesh(['nodes', '--router', router])).toMatchObject({ code: 3 });
});

test('demo draws one picture and exits', async () => {
  const { code, out } = await dmesh(['demo', '--nodes', '1', '--prompt', 'a green cube', '--seed', '5', '--out', 'demo/cube.jpg']);
  expect(code).toBe(0);
  expect(out).toMatch(/^demo\/cube\.jpg {2}128×128 {2}seed 5/);
  expect((await sharp(path.join(dir, 'demo/cube.jpg')).metadata()).format).toBe('jpeg');
});

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
