/**
 * Two attempts at one request: the one that fell silent, and one elsewhere. Both draw the same picture, the
 * seed being fixed, so whoever begins to answer first wins and the other is cancelled. Until then the caller
 * sees one picture coming along: of each step it hears once, from whoever is ahead. Decision 0012.
 */
import { type Clock, Code, Reason, StatusError } from '#core';

/** One attempt's leave to speak. */
export interface Voice {
  /** Aborts with the caller's, and when another attempt has won. */
  readonly signal: AbortSignal;
  /** It joined one that is silent: the caller has been told that a node has begun. */
  readonly joined: boolean;
  /** The node gave a sign of life. */
  heard(): void;
  /** The node has done one more step. False when the caller has heard of as many. */
  stepped(): boolean;
  /** The answer begins to come: from here on this attempt speaks alone. Throws when another was sooner. */
  answers(): void;
}

/** For an attempt that nobody joins. */
export function soleVoice(signal: AbortSignal): Voice {
  return { signal, joined: false, heard: () => {}, stepped: () => true, answers: () => {} };
}

export interface Racer extends Voice {
  readonly lost: boolean;
}

export class Race {
  readonly #clock: Clock;
  readonly #caller: AbortSignal;
  readonly #stops = new Map<Racer, AbortController>();
  #winner: Racer | undefined;
  #shownSteps = 0;
  #firstSigns = 0;
  #firstSteps = 0;
  #heardAt: number;

  constructor(clock: Clock, caller: AbortSignal) {
    this.#clock = clock;
    this.#caller = caller;
    this.#heardAt = clock.now();
  }

  /** Signs of life of the first attempt so far. */
  get signCount(): number {
    return this.#firstSigns;
  }

  /** Of these, steps. */
  get stepCount(): number {
    return this.#firstSteps;
  }

  /** Since the last of them, or since it began. */
  get silentMs(): number {
    return this.#clock.now() - this.#heardAt;
  }

  /** Some attempt has begun to answer. */
  get decided(): boolean {
    return this.#winner !== undefined;
  }

  enter(): Racer {
    const stop = new AbortController();
    const signal = AbortSignal.any([this.#caller, stop.signal]);
    const joined = this.#stops.size > 0;
    let steps = 0;
    const isLost = () => this.#winner !== undefined && this.#winner !== racer;
    const heard = () => {
      if (joined) return;
      this.#firstSigns++;
      this.#heardAt = this.#clock.now();
    };
    const racer: Racer = {
      signal,
      joined,
      heard,
      stepped: () => {
        heard();
        steps++;
        if (!joined) this.#firstSteps = steps;
        if (isLost() || steps <= this.#shownSteps) return false;
        this.#shownSteps = steps;
        return true;
      },
      answers: () => {
        if (isLost()) throw cancelled(SOONER);
        this.#winner = racer;
        for (const [other, controller] of this.#stops) if (other !== racer) controller.abort(cancelled(SOONER));
      },
      get lost() {
        return isLost();
      },
    };
    this.#stops.set(racer, stop);
    return racer;
  }

  /** Nothing any attempt could answer is wanted any more. */
  end(): void {
    for (const controller of this.#stops.values()) controller.abort(cancelled('no attempt is wanted any more'));
  }
}

export interface HedgeSettings {
  /** Which requests may have a second attempt. */
  readonly who: 'high' | 'off';
  /** Silent for this many times the predicted time to the next sign … */
  readonly factor: number;
  /** … and at least so long. */
  readonly floorMs: number;
}

export interface Expected {
  /** Until the node has loaded the model; 0 when it has. */
  readonly loadMs: number;
  /** After that, to the answer. */
  readonly runMs: number;
  /** In which it makes so many steps. */
  readonly stepCount: number;
}

/** Calls `onSilent` when the first attempt has given no sign for longer than it should, and again while that lasts. Returns what ends it. */
export function watchSilence(
  race: Race,
  options: { clock: Clock; settings: HedgeSettings; expected: Expected; onSilent: () => void },
): () => void {
  const { clock, expected, onSilent, settings } = options;
  const { factor, floorMs } = settings;
  const allowedMs = () => Math.max(floorMs, factor * nextSignMs(race, expected));
  let cancelTimer = () => {};
  const look = () => {
    if (race.decided) return;
    const leftMs = allowedMs() - race.silentMs;
    if (leftMs <= 0) onSilent();
    // Not later than that: with its next sign the attempt may have less time.
    cancelTimer = clock.schedule(leftMs > 0 ? Math.min(leftMs, floorMs) : floorMs, look);
  };
  cancelTimer = clock.schedule(floorMs, look);
  return () => cancelTimer();
}

/** A unary call gives no sign before its answer. A stream says that it has begun, then tells steps; pictures come after the last. */
function nextSignMs(race: Race, { loadMs, runMs, stepCount }: Expected): number {
  if (race.signCount === 0) return loadMs + runMs;
  if (race.stepCount === 0) return loadMs + runMs / stepCount;
  return race.stepCount < stepCount ? runMs / stepCount : runMs;
}

const SOONER = 'another node was sooner';

function cancelled(message: string): StatusError {
  return new StatusError({ code: Code.CANCELLED, reason: Reason.CANCELLED, message });
}
