/**
 * When is a backlog worked off? Slots that are taken become free one after the other; from then on each takes
 * its part. A slot that is busy for an hour therefore delays nobody for whom others are soon free.
 */

/**
 * `freeInMs`: for each slot the time until it is free; Infinity: not known. Returns, for an amount of waiting work in
 * milliseconds of GPU time, the time until all of it has been begun and a slot is free for what comes next.
 */
export function backlogClock(freeInMs: readonly number[]): (workMs: number) => number {
  const free = freeInMs.filter(Number.isFinite).sort((a, b) => a - b);
  let sum = 0;
  // With the first k slots alone: (work + what they are taken for) / k.
  const sums = free.map((ms) => {
    sum += ms;
    return sum;
  });
  return (workMs) => {
    if (free.length === 0) return workMs;
    // The most slots of which the last is free before the work is done without it.
    let [low, high] = [1, free.length];
    while (low < high) {
      const count = (low + high + 1) >> 1;
      if ((free[count - 1] as number) * (count - 1) < workMs + (sums[count - 2] as number)) low = count;
      else high = count - 1;
    }
    return (workMs + (sums[low - 1] as number)) / low;
  };
}
