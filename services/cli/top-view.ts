/** One frame of dmesh top: a snapshot of the mesh as lines that fit a screen. */
import type { MeshSnapshot, NodeInfo } from '#client';
import { generation } from '#contracts';
import { breakerOf, loadedOf, stateOf } from './node-words.js';
import { clip, table } from './table.js';
import type { Paint, ScreenSize } from './terminal.js';

const BAR_COLUMN_COUNT = 10;
const CLASS_NAMES: Readonly<Record<number, string>> = {
  [generation.Priority.HIGH]: 'high',
  [generation.Priority.NORMAL]: 'normal',
  [generation.Priority.LOW]: 'low',
};

export interface View {
  readonly address: string;
  readonly paint: Paint;
  /** Shown beside the title, such as that the router is away. */
  readonly notice?: string | undefined;
}

/** As many lines as it takes, each as wide as it is. */
export function frame(snapshot: MeshSnapshot, view: View): string[] {
  return [...head(snapshot, view), '', ...nodeLines(snapshot.nodes, view.paint), '', ...queueLines(snapshot, view.paint)];
}

/** The same for a screen: the list of nodes gives way to head and queue, long lines are cut. */
export function fitted(snapshot: MeshSnapshot, view: View, { columnCount, rowCount }: ScreenSize): string[] {
  const top = [...head(snapshot, view), ''];
  const queue = ['', ...queueLines(snapshot, view.paint)];
  const nodes = nodeLines(snapshot.nodes, view.paint);
  const room = Math.max(2, rowCount - top.length - queue.length);
  const shown = nodes.length <= room ? nodes : [...nodes.slice(0, room - 1), `… and ${nodes.length - room + 1} more`];
  return [...top, ...shown, ...queue].slice(0, rowCount).map((line) => clip(line, columnCount));
}

function head(snapshot: MeshSnapshot, { address, paint, notice }: View): string[] {
  const { nodes, queuedCount, runningCount, membershipFrozen, rates } = snapshot;
  const slotCount = nodes.reduce((sum, node) => sum + node.slotCount, 0);
  const busyCount = nodes.reduce((sum, node) => sum + node.busyCount, 0);
  const frozen = membershipFrozen ? paint('yellow', 'NATS is silent: the router keeps what it knew') : undefined;
  const title = [paint('bold', `dmesh top ${address}`), frozen, notice === undefined ? undefined : paint('red', notice)];
  const { answersPerSecond = 0, errorsPerSecond = 0, gpuSecondsPerSecond = 0 } = rates ?? {};
  const errors = `${errorsPerSecond.toFixed(1)} errors/s`;
  return [
    title.filter((part) => part !== undefined).join('  '),
    `${nodes.length} nodes, ${busyCount} of ${slotCount} slots busy · ${queuedCount} queued, ${runningCount} running`,
    `${answersPerSecond.toFixed(1)} answers/s · ${errorsPerSecond > 0 ? paint('red', errors) : errors} · ${gpuSecondsPerSecond.toFixed(2)} GPU s/s  (means of 10 s, this router)`,
  ];
}

function nodeLines(nodes: readonly NodeInfo[], paint: Paint): string[] {
  if (nodes.length === 0) return ['The router knows no node.'];
  const rows = [...nodes]
    .sort((a, b) => a.nodeId.localeCompare(b.nodeId, 'en', { numeric: true }))
    .map((node) => [
      node.nodeId,
      stateOf(node, paint),
      breakerOf(node, paint),
      node.engineState,
      `${node.busyCount}/${node.slotCount}`,
      stepOf(node, paint),
      node.costRatio > 0 ? `×${node.costRatio.toFixed(2)}` : '-',
      String(node.completedCount),
      String(node.failedCount),
      printable(loadedOf(node)),
      node.gpu ? `${Math.round(node.gpu.utilisationRatio * 100)} % ${Math.round(node.gpu.temperatureCelsius)} °C` : 'CPU',
    ]);
  return lines(table(['NODE', 'STATE', 'BREAKER', 'ENGINE', 'SLOTS', 'STEP', 'PACE', 'DONE', 'FAILED', 'MODELS', 'GPU'], rows));
}

function stepOf(node: NodeInfo, paint: Paint): string {
  // Steps come with beats, once a second: a short picture may be over before its first.
  if (node.runningRequestId === '') return node.busyCount > 0 ? 'busy' : '-';
  const ratio = node.runningTotal > 0 ? Math.min(1, node.runningStep / node.runningTotal) : 0;
  const full = Math.round(ratio * BAR_COLUMN_COUNT);
  const bar = `${'█'.repeat(full)}${'░'.repeat(BAR_COLUMN_COUNT - full)}`;
  const paused = node.pausedRequestId === '' ? '' : ' +1 paused';
  return `${paint('cyan', bar)} ${node.runningStep}/${node.runningTotal}${paused}`;
}

function queueLines({ classes, tenants, otherTenants }: MeshSnapshot, paint: Paint): string[] {
  const figures = (load: { queuedCount: number; queuedGpuSeconds: number }) => [String(load.queuedCount), load.queuedGpuSeconds.toFixed(1)];
  const byClass = classes.map((load) => [CLASS_NAMES[load.priority] ?? '?', ...figures(load)]);
  const byTenant = tenants.map((load) => [printable(load.tenant), ...figures(load)]);
  if (otherTenants) byTenant.push([paint('dim', `${otherTenants.tenantCount} others`), ...figures(otherTenants)]);
  const left = lines(table(['CLASS', 'QUEUED', 'GPU SECONDS'], byClass));
  const right = byTenant.length === 0 ? ['TENANT  nobody waits'] : lines(table(['TENANT', 'QUEUED', 'GPU SECONDS'], byTenant));
  const pairs = Array.from({ length: Math.max(left.length, right.length) }, (_, i) => [left[i] ?? '', right[i] ?? '']);
  return lines(
    table(
      [pairs[0]?.[0] ?? '', `   ${pairs[0]?.[1] ?? ''}`],
      pairs.slice(1).map(([a = '', b = '']) => [a, `   ${b}`]),
    ),
  );
}

/** A tenant's name comes from a caller: what moves a cursor must not reach the terminal. */
function printable(text: string): string {
  return text.replace(/\p{C}/gu, '?').slice(0, 40);
}

function lines(text: string): string[] {
  return text.trimEnd().split('\n');
}
