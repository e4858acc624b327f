/** How a node feels and what it has, in few words; the same in every list. */
import type { NodeInfo } from '#client';
import { admin } from '#contracts';
import type { Paint } from './terminal.js';

export function stateOf(node: NodeInfo, paint: Paint): string {
  const { GONE, SUSPECT } = admin.Liveness;
  if (node.liveness === GONE) return paint('red', 'gone');
  if (node.liveness === SUSPECT) return paint('yellow', 'suspect');
  if (node.draining) return paint('yellow', 'draining');
  return node.connected ? paint('green', 'alive') : paint('yellow', 'unattached');
}

export function breakerOf(node: NodeInfo, paint: Paint): string {
  const { OPEN, HALF_OPEN } = admin.BreakerState;
  if (node.breakerCause === 'tooSlow') return paint('red', 'quarantine');
  if (node.breaker === OPEN) return paint('red', 'open');
  return node.breaker === HALF_OPEN ? paint('yellow', 'half-open') : 'closed';
}

/** Every model, those that are not loaded with the time a load takes. */
export function modelsOf({ models }: NodeInfo): string {
  const words = models.map(({ name, revision, loadedNodes, loadMs }) =>
    loadedNodes > 0 ? `${name}@${clipped(revision)}` : `${name}@${clipped(revision)} (${duration(loadMs)})`,
  );
  return words.join(' ') || '-';
}

/** What is loaded, and how many more could be. */
export function loadedOf({ models }: NodeInfo): string {
  const loaded = models.filter(({ loadedNodes }) => loadedNodes > 0);
  const more = models.length - loaded.length;
  const words = loaded.map(({ name, revision }) => `${name}@${clipped(revision)}`);
  return [...words, ...(more > 0 ? [`+${more}`] : [])].join(' ') || '-';
}

/** A revision may be a digest. */
function clipped(revision: string): string {
  return revision.slice(0, 12);
}

export function duration(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 100_000) return `${(ms / 1000).toFixed(1)} s`;
  const allSeconds = Math.round(ms / 1000);
  const allMinutes = Math.round(ms / 60_000);
  if (allMinutes < 60) return `${Math.floor(allSeconds / 60)} min ${allSeconds % 60} s`;
  return `${Math.floor(allMinutes / 60)} h ${allMinutes % 60} min`;
}
