/**
 * A node that takes many times what it should is in quarantine: its breaker is open, it draws nothing but canaries,
 * and it is back as soon as one of them is in range. Never the last node of a model, and never so many that fewer
 * than half are left (libs/breaker/pool.ts): a slow picture is better than none. Decision 0014.
 */
import { DEFAULT_SETTINGS } from '#breaker';
import { Code, type Emit, Reason, StatusError } from '#core';
import { type CostModel, paceOf, type Work } from '#scheduling';
import type { Fleet } from './dispatch/fleet.js';
import { type FleetNode, loadMsOf } from './dispatch/fleet-node.js';
import type { RouterEvent } from './events.js';

export interface SlownessSettings {
  /** A node that takes more than this many times what it should gets less work. */
  readonly slowRatio: number;
  /** Past this it is in quarantine. */
  readonly quarantineRatio: number;
}

export interface SlowNodesOptions {
  readonly cost: CostModel;
  readonly fleet: Fleet;
  readonly emit: Emit<RouterEvent>;
  readonly settings: SlownessSettings;
}

/** It comes back at this part of what sent it away, so that one at the limit does not come and go. */
const RETURN_RATIO = 2 / 3;

export class SlowNodes {
  /** Would be in quarantine, were there enough others. By life: nothing is kept of nodes that are gone. */
  readonly #kept = new WeakSet<FleetNode>();

  constructor(private readonly options: SlowNodesOptions) {}

  /** Learns from what a request took, or has taken at least. */
  learn(node: FleetNode, work: Work, tookMs: number): void {
    const { cost, settings } = this.options;
    cost.observe(node.nodeId, work, tookMs);
    const slowness = cost.slowness(node.nodeId, work.model);
    if (slowness <= settings.quarantineRatio) this.#kept.delete(node);
    else if (node.breaker.state === 'closed') this.#quarantine(node, work.model, slowness);
  }

  /** What a canary of this node draws, when it is in quarantine: something whose time is known, loaded where possible. */
  yardstick(node: FleetNode): { readonly work: Work; readonly expectedMs: number } | undefined {
    if (node.breaker.cause !== 'tooSlow') return undefined;
    const known = [...node.beat.models].sort(
      (a, b) => Math.sign(loadMsOf(a)) - Math.sign(loadMsOf(b)) || this.#slowness(node, b.name) - this.#slowness(node, a.name),
    );
    return known.map(({ name }) => this.options.cost.yardstick(node.nodeId, name)).find((each) => each !== undefined);
  }

  /** Throws when that canary took too long. */
  judge(node: FleetNode, { work, expectedMs }: { work: Work; expectedMs: number }, tookMs: number): void {
    const { cost, settings } = this.options;
    const slowness = paceOf(tookMs, expectedMs) / cost.fleetPace(work.model);
    const allowed = Math.max(settings.slowRatio, RETURN_RATIO * settings.quarantineRatio);
    if (slowness > allowed) throw tooSlow({ tookMs, slowness, allowed });
    cost.judgeAnew(node.nodeId);
  }

  #quarantine(node: FleetNode, model: string, slowness: number): void {
    const { cost, emit, fleet, settings } = this.options;
    const { expectedMs = Number.POSITIVE_INFINITY } = cost.yardstick(node.nodeId, model) ?? {};
    // Where no canary could end in time, nothing would bring it back.
    const isProvable = settings.quarantineRatio * expectedMs < DEFAULT_SETTINGS.probeTimeoutMs;
    const isSpare = node.beat.models.every(({ name, revision }) => fleet.takes(name, revision, node));
    if (isProvable && isSpare && node.breaker.eject('tooSlow', `takes ${slowness.toFixed(1)} times what it should`)) return;
    if (this.#kept.has(node)) return;
    this.#kept.add(node);
    emit({ type: 'slowNodeKept', nodeId: node.nodeId, slowness });
  }

  #slowness(node: FleetNode, model: string): number {
    return this.options.cost.slowness(node.nodeId, model);
  }
}

function tooSlow({ tookMs, slowness, allowed }: { tookMs: number; slowness: number; allowed: number }): StatusError {
  return new StatusError({
    code: Code.DEADLINE_EXCEEDED,
    reason: Reason.EXECUTION_TIMEOUT,
    message: `expected the canary to take at most ${allowed.toFixed(1)} times what it should, it took ${slowness.toFixed(1)} times that, ${Math.round(tookMs)} ms`,
  });
}
