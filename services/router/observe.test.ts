import { expect, test } from 'vitest';
import { createLogger, createMetrics } from '#telemetry';
import { type NodeState, observe } from './observe.js';

const ordinary: NodeState = { nodeId: 'a', state: 'connected', breaker: 'closed', slowness: 1.02 };

test('a node has series of its own only while something is the matter with it', async () => {
  let nodes: NodeState[] = [];
  const metrics = createMetrics({ service: 'router' });
  const counts = { waitingCount: () => 0, runningCount: () => 0, liveCount: () => 0, jobsReplicaCount: () => 0 };
  const sources = { ...counts, membershipFrozen: () => false, nodes: () => nodes };
  observe({ logger: createLogger({ service: 'router', level: 'error', format: 'json' }), metrics, sources });
  const ofNodes = async () => (await metrics.render()).split('\n').filter((line) => line.includes('node='));

  nodes = [ordinary, { ...ordinary, nodeId: 'b', breaker: 'open' }, { ...ordinary, nodeId: 'c', slowness: 1.6 }];
  expect(await ofNodes()).toEqual([
    'dmesh_router_breaker_state{node="b",service="router"} 2',
    'dmesh_router_node_slowness{node="c",service="router"} 1.6',
  ]);
  expect(await metrics.render()).toContain('dmesh_router_nodes{state="connected",service="router"} 3');

  nodes = [ordinary, { ...ordinary, nodeId: 'b' }, { ...ordinary, nodeId: 'c' }];
  expect(await ofNodes()).toEqual([]);
});
