import { expect, test } from 'vitest';
import { createMetrics } from './metrics.js';

test('counters, gauges and histograms render with help, type and labels', async () => {
  const metrics = createMetrics({ service: 'router' });
  const retries = metrics.counter({ name: 'dmesh_retries_total', help: 'Retries.', labels: ['reason'] });
  retries.with({ reason: 'A' }).add();
  retries.with({ reason: 'A' }).add(2);
  metrics.gauge({ name: 'dmesh_queue_depth', help: 'Depth.' }).with().set(7);
  metrics
    .histogram({ name: 'dmesh_wait_seconds', help: 'Wait.', buckets: [0.1, 1] })
    .with()
    .observe(0.5);
  const text = await metrics.render();
  expect(text).toContain('# HELP dmesh_retries_total Retries.');
  expect(text).toContain('# TYPE dmesh_retries_total counter');
  expect(text).toContain('dmesh_retries_total{reason="A",service="router"} 3');
  expect(text).toContain('dmesh_queue_depth{service="router"} 7');
  expect(text).toContain('dmesh_wait_seconds_bucket{le="1",service="router"} 1');
  expect(metrics.contentType).toContain('text/plain');
});

test('two registries in one process share nothing', async () => {
  const [a, b] = [createMetrics({ service: 'a' }), createMetrics({ service: 'b' })];
  a.counter({ name: 'dmesh_calls_total', help: 'Calls.' }).with().add();
  b.counter({ name: 'dmesh_calls_total', help: 'Calls.' });
  expect(await a.render()).toContain('dmesh_calls_total{service="a"} 1');
  expect(await b.render()).not.toContain('service="a"');
});

test('the same labels give the same child, whatever their order', () => {
  const counter = createMetrics({ service: 's' }).counter({ name: 'dmesh_x_total', help: 'X.', labels: ['a', 'b'] });
  expect(counter.with({ a: '1', b: '2' })).toBe(counter.with({ b: '2', a: '1' }));
  expect(counter.with({ a: '1', b: '2' })).not.toBe(counter.with({ a: '2', b: '1' }));
});

test('a removed series is gone, and back at zero when it returns', async () => {
  const metrics = createMetrics({ service: 's' });
  const gauge = metrics.gauge({ name: 'dmesh_node_busy', help: 'Busy.', labels: ['node'] });
  gauge.with({ node: 'n1' }).set(1);
  gauge.remove({ node: 'n1' });
  expect(await metrics.render()).not.toContain('n1');
  gauge.with({ node: 'n1' }).add(1);
  expect(await metrics.render()).toContain('dmesh_node_busy{node="n1",service="s"} 1');
});

test('a collecting gauge is asked at every scrape and may report another set each time', async () => {
  const metrics = createMetrics({ service: 's' });
  let nodes = ['n1', 'n2'];
  metrics.gauge({
    name: 'dmesh_nodes',
    help: 'Nodes.',
    labels: ['node'],
    collect: (gauge) => {
      gauge.clear();
      for (const node of nodes) gauge.with({ node }).set(1);
    },
  });
  expect(await metrics.render()).toContain('node="n2"');
  nodes = ['n1'];
  expect(await metrics.render()).not.toContain('node="n2"');
});

test('default metrics come only when asked for', async () => {
  expect(await createMetrics({ service: 's' }).render()).not.toContain('process_');
  const text = await createMetrics({ service: 's', defaultMetrics: true }).render();
  expect(text).toContain('process_resident_memory_bytes');
  expect(text).toContain('nodejs_eventloop_lag_p99_seconds');
});
