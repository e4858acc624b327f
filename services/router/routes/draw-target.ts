/**
 * Which target does this caller get? Weighted rendezvous hashing (Thaler and Ravishankar 1998; weights as
 * in Schindelhauer and Schomaker 2005): every target draws a number from the caller's key, scaled by its
 * weight, and the best one wins. Equal keys get equal targets on every router, without any memory; a change
 * of weights moves only as many callers as it must; a target that is away leaves its callers to the others
 * and gets the same ones back.
 */
import { createHash } from 'node:crypto';
import { type Route, type RouteTarget, targetName } from './route.js';

/** Undefined when none of those `among` has a weight. */
export function drawTarget(route: Route, key: string, among: (target: RouteTarget) => boolean): RouteTarget | undefined {
  let best: RouteTarget | undefined;
  let bestScore = Number.NEGATIVE_INFINITY;
  for (const target of route.targets) {
    if (target.weight <= 0 || !among(target)) continue;
    // Of exponential clocks with these rates, the first to ring is target i with probability weight i / sum.
    const score = Math.log(unit(`${route.name}\n${targetName(target)}\n${key}`)) / target.weight;
    if (score > bestScore) [best, bestScore] = [target, score];
  }
  return best;
}

/** Evenly spread over (0, 1), the same for the same text for ever. */
function unit(text: string): number {
  const bits = createHash('sha256').update(text).digest().readUIntBE(0, 6);
  return (bits + 0.5) / 2 ** 48;
}
