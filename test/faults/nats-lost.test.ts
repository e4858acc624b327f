/** NATS carries hints. While it is away the mesh serves what it knows, and no request fails because of it. */
import { expect, test } from 'vitest';
import { byNode, failures, Load } from '../support/load.js';
import { wrongPictures } from '../support/picture-oracle.js';
import { only, useMesh } from '../support/test-mesh.js';

const mesh = useMesh({ nodes: 3, env: { node: { SCRIPT_STEP: '5ms' } } });

const frozen = async () => (await mesh().figures()).sum('dmesh_router_membership_frozen');
const becomesFrozen = (value: 0 | 1) => expect.poll(frozen, { timeout: 20_000 }).toBe(value);

async function allRight(load: Load): Promise<void> {
  const outcomes = await load.stop();
  expect(failures(outcomes)).toEqual({});
  expect(await wrongPictures(outcomes)).toEqual([]);
}

test('NATS killed and started again under load: no error; membership is frozen and then live again', async () => {
  const load = new Load(mesh().client, { callers: 12 });
  await load.more(12);
  await only(mesh().local.nats).kill();
  await becomesFrozen(1);
  await load.more(40);
  await mesh().local.restartNats();
  await becomesFrozen(0);
  await load.more(12);
  await allRight(load);
  await mesh().whole();
});

test('a node that dies while NATS is away is noticed all the same', async () => {
  await only(mesh().local.nats).kill();
  await becomesFrozen(1);
  const load = new Load(mesh().client, { callers: 12 });
  await load.more(12);
  const victim = mesh().node('node-2');
  victim.kill('SIGKILL');
  await expect.poll(async () => (await mesh().info('node-2')).connected, { timeout: 10_000 }).toBe(false);
  const before = byNode(load.outcomes)['node-2'] ?? 0;
  await load.more(30);
  expect(byNode(load.outcomes)['node-2'] ?? 0).toBe(before);
  await allRight(load);
  await mesh().local.restartNats();
  await becomesFrozen(0);
  await mesh().revive(victim);
});

test('NATS frozen with SIGSTOP under load: no error; its silence is noticed, its return too', async () => {
  const load = new Load(mesh().client, { callers: 6 });
  await load.more(6);
  only(mesh().local.nats).pause();
  await becomesFrozen(1);
  await load.more(12);
  only(mesh().local.nats).resume();
  await becomesFrozen(0);
  await load.more(6);
  await allRight(load);
  await mesh().whole();
});
