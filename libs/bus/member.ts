/**
 * One node as an observer sees it: what it last said, and how fresh that is. Kept by Membership.
 *
 *   alive ── 3 beats missed ──► suspect ── 10 missed, and no live gRPC stream ──► gone ── 60 s ──► forgotten
 *     ▲                            │                                               │
 *     └────────── a beat ──────────┴─────────────────── a beat ────────────────────┘
 *
 * A leave removes a member at once from any of them.
 */
import type { Beat } from './beat.js';

export type MemberState = 'alive' | 'suspect' | 'gone';

export interface Member {
  readonly nodeId: string;
  readonly state: MemberState;
  /** The newest beat; stays the last known one while the member is silent. */
  readonly beat: Beat;
  /** Clock milliseconds of the first beat of this incarnation. */
  readonly joinedAt: number;
  /** Clock milliseconds at which the newest beat came. */
  readonly heardAt: number;
}

/** What of a member changed; progress of running requests and counters are not worth an event. */
export type MemberAspect = 'address' | 'zone' | 'engine' | 'draining' | 'slots' | 'gpu' | 'models';

const NONE: readonly MemberAspect[] = [];

/** Costs a few comparisons a beat; allocates only when something changed. */
export function changedAspects(before: Beat, after: Beat): readonly MemberAspect[] {
  const changed: MemberAspect[] = [];
  if (before.address !== after.address) changed.push('address');
  if (before.zone !== after.zone) changed.push('zone');
  if (engineChanged(before.engine, after.engine)) changed.push('engine');
  if (before.draining !== after.draining) changed.push('draining');
  if (before.slotCount !== after.slotCount || before.busyCount !== after.busyCount) changed.push('slots');
  if (before.gpu?.uuid !== after.gpu?.uuid) changed.push('gpu');
  if (modelsChanged(before.models, after.models)) changed.push('models');
  return changed.length === 0 ? NONE : changed;
}

function engineChanged(before: Beat['engine'], after: Beat['engine']): boolean {
  return (
    before.state !== after.state ||
    before.restartCount !== after.restartCount ||
    before.version !== after.version ||
    before.determinismClass !== after.determinismClass
  );
}

/** A model's limits change with its revision only, so name, revision and LoRAs tell; and whether it is loaded. */
function modelsChanged(before: Beat['models'], after: Beat['models']): boolean {
  if (before.length !== after.length) return true;
  return before.some((model, i) => {
    const other = after[i];
    if (!other || model.name !== other.name || model.revision !== other.revision) return true;
    if (model.loaded !== other.loaded || model.loadMs !== other.loadMs) return true;
    return model.loras.length !== other.loras.length || model.loras.some((lora, j) => lora.name !== other.loras[j]?.name);
  });
}
