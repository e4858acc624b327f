/** How a node feels, in one word and its colour; the same in every list. */
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
