/**
 * The one place that knows opossum. It keeps the three states, the timer from open to half-open, and
 * lets exactly one probe through; its other abilities are off, because each has a trap (opossum 9.0):
 *
 * - its percentage rule counts rejected calls as fired and never forgets on closing, so users' calls
 *   are not fired at all: our own rule says when to open, and only probes are fired;
 * - its failure rate cannot exceed 100, so a threshold of 100 is never passed; for that, the buckets
 *   must not rotate between a fire and its failure, so they never do (one number a probe is kept);
 * - its timeout and abort controller are shared by all calls of a breaker; each probe has its own;
 * - it keeps and changes the options object, so each breaker has its own;
 * - an action that returns undefined counts as failed, so the action returns true.
 */
import { EventEmitter } from 'node:events';
import CircuitBreaker from 'opossum';

export type BreakerState = 'closed' | 'open' | 'halfOpen';

export interface GateOptions {
  readonly name: string;
  /** Asked at every opening, also those opossum decides: how long until the next probe. */
  readonly openMs: () => number;
  /** Called after `state` has changed. */
  readonly onState: (state: BreakerState) => void;
}

/** With a controller opossum starts no timer of its own for each breaker. It never emits. */
const noRotation = new EventEmitter().setMaxListeners(0);

type Probe = () => Promise<void>;

export class Gate {
  readonly #options: GateOptions;
  readonly #circuitOptions: CircuitBreaker.Options;
  readonly #circuit: CircuitBreaker<[Probe], boolean>;
  #state: BreakerState = 'closed';
  #rechecking = false;

  constructor(options: GateOptions) {
    this.#options = options;
    this.#circuitOptions = {
      name: options.name,
      timeout: false,
      errorThresholdPercentage: 100,
      volumeThreshold: Number.MAX_SAFE_INTEGER,
      rollingPercentilesEnabled: false,
      enableSnapshots: false,
      rotateBucketController: noRotation,
    };
    this.#circuit = new CircuitBreaker(async (probe: Probe) => {
      await probe();
      return true;
    }, this.#circuitOptions);
    // Before opossum's own listener, which starts the timer with what it finds in the options.
    this.#circuit.prependListener('open', () => {
      this.#circuitOptions.resetTimeout = this.#rechecking ? 0 : options.openMs();
    });
    this.#circuit.on('open', () => this.#enter('open'));
    this.#circuit.on('halfOpen', () => this.#enter('halfOpen'));
    this.#circuit.on('close', () => this.#enter('closed'));
  }

  get state(): BreakerState {
    return this.#state;
  }

  open(): void {
    this.#circuit.open();
  }

  close(): void {
    this.#circuit.close();
  }

  /** Ends the time out of an open gate now; half-open follows in a moment. */
  recheck(): void {
    if (this.#state !== 'open') return;
    // opossum has no such verb: closing takes its timer back, opening starts one of no length.
    this.#rechecking = true;
    this.#circuit.close();
    this.#circuit.open();
    this.#rechecking = false;
  }

  /** In half-open, once: closes when `probe` resolves, opens again when it rejects. */
  async probe(probe: Probe): Promise<void> {
    await this.#circuit.fire(probe).catch(() => {}); // whoever made the probe knows why; the state tells the rest
  }

  /** Clears the timer; no state changes after this. */
  dispose(): void {
    this.#circuit.shutdown();
  }

  #enter(state: BreakerState): void {
    if (this.#rechecking) return;
    this.#state = state;
    this.#options.onState(state);
  }
}

/** For a test: listeners opossum has left on the shared controller. */
export function rotationListenerCount(): number {
  return noRotation.listenerCount('rotate');
}
