import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { engineCommand } from './command.js';

async function root(): Promise<{ nodePath: string; packageRoot: string }> {
  const packageRoot = await mkdtemp(path.join(tmpdir(), 'dmesh-root-'));
  onTestFinished(() => rm(packageRoot, { recursive: true }));
  return { nodePath: '/bin/node', packageRoot };
}

test('engineCommand() knows its own engines and takes any other command', async () => {
  const at = await root();
  expect(engineCommand('onnx', at)).toEqual(['/bin/node', `${at.packageRoot}/dist/services/engine-onnx/main.js`]);
  expect(engineCommand('node  my.js --x', at)).toEqual(['/bin/node', 'my.js', '--x']);
  expect(engineCommand('python3 e.py', at)).toEqual(['python3', 'e.py']);
});

test('engineCommand() names the command that sets diffusers up, until it is', async () => {
  const at = await root();
  expect(() => engineCommand('diffusers', at)).toThrow('npm run setup:diffusers');
  const environment = path.join(at.packageRoot, '.cache/engine-diffusers');
  await mkdir(environment, { recursive: true });
  await writeFile(path.join(environment, '.requirements-sha256'), '');
  expect(engineCommand('diffusers', at)).toEqual([`${environment}/bin/python`, `${at.packageRoot}/services/engine-diffusers/main.py`]);
});
