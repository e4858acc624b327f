/**
 * The real grpcurl, as a stranger would use it: no flags but -plaintext. It runs where grpcurl is at
 * hand (PATH or .cache/bin); DMESH_TEST_GRPCURL=1 has Go install it first. Never in CI.
 */
import { execFile, execFileSync } from 'node:child_process';
import { accessSync, constants, mkdirSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import sharp from 'sharp';
import { describe, expect, test } from 'vitest';
import { packageRoot } from '#runtime';
import { useMesh } from '../support/test-mesh.js';

const binDir = path.join(packageRoot, '.cache/bin');

/** Path of the program, or why there is none. */
function findGrpcurl(): { readonly path: string } | { readonly missing: string } {
  if (process.env.CI !== undefined) return { missing: 'not part of CI' };
  const dirs = [...(process.env.PATH ?? '').split(path.delimiter), binDir];
  const found = () => dirs.map((dir) => path.join(dir, 'grpcurl')).find(isProgram);
  const there = found();
  if (there !== undefined) return { path: there };
  if (process.env.DMESH_TEST_GRPCURL !== '1') return { missing: 'grpcurl is not on PATH; DMESH_TEST_GRPCURL=1 installs it with Go' };
  mkdirSync(binDir, { recursive: true });
  try {
    const env = { ...process.env, GOBIN: binDir };
    execFileSync('go', ['install', 'github.com/fullstorydev/grpcurl/cmd/grpcurl@latest'], { env, stdio: 'ignore', timeout: 300_000 });
  } catch (error) {
    return { missing: `go could not install grpcurl: ${error instanceof Error ? error.message : error}` };
  }
  const installed = found();
  return installed === undefined ? { missing: 'go installed no grpcurl' } : { path: installed };
}

function isProgram(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

const grpcurl = findGrpcurl();
if ('missing' in grpcurl) process.stdout.write(`SKIPPED grpcurl: ${grpcurl.missing}\n`);

describe.skipIf('missing' in grpcurl)('grpcurl -plaintext', () => {
  const mesh = useMesh({ nodes: 1 });
  const run = async (...args: string[]): Promise<string> => {
    const { stdout } = await promisify(execFile)('path' in grpcurl ? grpcurl.path : '', ['-plaintext', ...args], { maxBuffer: 16e6 });
    return stdout;
  };
  const servers = [
    ['router', () => mesh().local.address, 'diffusionmesh.v1.MeshAdminService'],
    ['node', () => mesh().node('node-1').grpc, 'diffusionmesh.v1.InferenceNodeService'],
  ] as const;

  test.each(servers)('list and describe work on a %s', async (_, address, ownService) => {
    const services = (await run(address(), 'list')).trim().split('\n');
    expect(services).toEqual(expect.arrayContaining(['diffusionmesh.v1.ImageGenerationService', 'grpc.health.v1.Health', ownService]));
    for (const service of services) expect(await run(address(), 'describe', service)).toContain('rpc ');
    expect(await run(address(), 'describe', 'diffusionmesh.v1.GenerateRequest')).toContain('optional uint64 seed = 9;');
  });

  test.each(servers)('Generate draws on a %s', async (_, address) => {
    const out = await run('-d', '{"prompt": "a red circle", "seed": 7}', address(), 'diffusionmesh.v1.ImageGenerationService/Generate');
    const { images, used } = JSON.parse(out);
    expect(used.seed).toBe('7');
    expect(await sharp(Buffer.from(images[0].data, 'base64')).metadata()).toMatchObject({ format: 'png', width: 128, height: 128 });
  });

  test.each(servers)('GenerateStream tells how it comes along on a %s', async (_, address) => {
    const out = await run('-d', '{"prompt": "a red circle"}', address(), 'diffusionmesh.v1.ImageGenerationService/GenerateStream');
    for (const arm of ['accepted', 'started', 'step', 'image', 'completed']) expect(out).toContain(`"${arm}": {`);
  });

  test.each(servers)('a refusal names every faulty field on a %s', async (_, address) => {
    const failed = await run('-d', '{"width": 7, "steps": 9999}', address(), 'diffusionmesh.v1.ImageGenerationService/Generate').then(
      () => expect.fail('expected a refusal'),
      (error) => error,
    );
    for (const part of ['InvalidArgument', 'prompt: expected', 'width: expected', 'steps: expected', 'google.rpc.BadRequest']) {
      expect(failed.stderr).toContain(part);
    }
  });

  test.each(servers)('health is SERVING on a %s', async (_, address) => {
    expect(await run(address(), 'grpc.health.v1.Health/Check')).toContain('SERVING');
  });
});
