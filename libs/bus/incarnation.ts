/**
 * Which life of a node speaks? A restarted node counts its beats from one again, so beats are ordered
 * by (incarnation, seq). An incarnation is the start time in milliseconds, which grows over restarts,
 * and a few random characters that keep two lives apart that began in the same millisecond. A clock that
 * was set back between two lives is found out by the membership, by who still beats.
 */
import type { Random } from '#core';

export function makeIncarnation(startedAtEpochMs: number, random: Random): string {
  const tiebreak = Math.floor(random() * 36 ** 6)
    .toString(36)
    .padStart(6, '0');
  return `${Math.floor(startedAtEpochMs)}-${tiebreak}`;
}

/** Negative when `a` is the earlier life, zero when they are the same. */
export function compareIncarnations(a: string, b: string): number {
  if (a === b) return 0;
  const byTime = Number.parseInt(a, 10) - Number.parseInt(b, 10);
  if (byTime !== 0 && !Number.isNaN(byTime)) return byTime;
  return a < b ? -1 : 1;
}
