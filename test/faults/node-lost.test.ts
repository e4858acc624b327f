/** A node that dies or freezes under load costs nobody an answer, and no answer its right picture. */
import { expect, test } from 'vitest';
import { byNode, digests, failures, Load } from '../support/load.js';
import { wrongPictures } from '../support/picture-oracle.js';
import { useMesh } from '../support/test-mesh.js';

const mesh = useMesh({ nodes: 3, env: { node: { SCRIPT_STEP: '5ms' } } });

test('kill -9 of a node while 200 concurrent requests run: no caller error, the same bytes for every seed', async () => {
  const { client, local } = mesh();
  const undisturbed = await new Load(client, { callers: 50, count: 200 }).finished();
  expect(failures(undisturbed)).toEqual({});

  const load = new Load(client, { callers: 200, count: 200 });
  await load.more(30);
  const victim = mesh().node('node-2');
  victim.kill('SIGKILL');
  const outcomes = await load.finished();

  expect(outcomes).toHaveLength(200);
  expect(failures(outcomes)).toEqual({});
  expect(await wrongPictures(outcomes)).toEqual([]);
  expect(digests(outcomes)).toEqual(digests(undisturbed));
  await victim.exited;
  await mesh().revive(victim);
  expect(local.nodes).toHaveLength(4);
});

test('a node that was killed comes back under its name and works again', async () => {
  const victim = mesh().node('node-1');
  victim.kill('SIGKILL');
  await victim.exited;
  await mesh().revive(victim);
  const load = new Load(mesh().client, { callers: 12 });
  await expect.poll(() => byNode(load.outcomes)['node-1'] ?? 0, { timeout: 10_000 }).toBeGreaterThan(3);
  const outcomes = await load.stop();
  expect(failures(outcomes)).toEqual({});
  expect(await wrongPictures(outcomes)).toEqual([]);
});

test('SIGSTOP of a node under load: no caller error; when it goes on it works again', async () => {
  const load = new Load(mesh().client, { callers: 30 });
  await load.more(30);
  const frozen = mesh().node('node-3');
  frozen.kill('SIGSTOP');
  await expect.poll(async () => (await mesh().info('node-3')).connected, { timeout: 10_000 }).toBe(false);
  await load.more(60); // the other two carry on
  frozen.kill('SIGCONT');
  const before = byNode(load.outcomes)['node-3'] ?? 0;
  await expect.poll(() => byNode(load.outcomes)['node-3'] ?? 0, { timeout: 15_000 }).toBeGreaterThan(before + 3);
  const outcomes = await load.stop();
  expect(failures(outcomes)).toEqual({});
  expect(await wrongPictures(outcomes)).toEqual([]);
});
