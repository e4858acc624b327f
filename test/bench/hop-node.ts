/**
 * A node without an engine, for hop.ts: it answers at once with a picture of a chosen size, so that
 * what is measured is the way there and back. Joins the mesh where NATS_URL names one.
 */
import { BeatPublisher, connectBus } from '#bus';
import { expectLargeBuffers, systemClock, systemRandom, watchParent } from '#runtime';
import { FakeNode } from '../support/fake-node.js';

const { DMESH_NODE_ID: nodeId = 'alone', NATS_URL: url, HOP_IMAGE_BYTES: imageBytes } = process.env;
expectLargeBuffers(); // as a node does
const node = new FakeNode(nodeId, { slotCount: 32, imageBytes: Number(imageBytes) });
await node.start();
if (url !== undefined) {
  const bus = connectBus({ url, name: nodeId, clock: systemClock, random: systemRandom, emit: () => {} });
  new BeatPublisher({ bus, clock: systemClock, random: systemRandom, read: () => node.beat }).start();
}
watchParent(Number(process.env.DMESH_PARENT_PID), () => process.exit(0));
process.once('SIGTERM', () => process.exit(0));
process.stdout.write(`${JSON.stringify({ msg: 'ready', grpc: node.beat.address, http: '' })}\n`);
