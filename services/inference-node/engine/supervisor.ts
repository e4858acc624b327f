/**
 * Keeps one engine process alive and trustworthy, as supervisord would keep a process:
 *
 *   starting → ready            it answered Status, loaded a model, and its canary passed
 *   ready → checking → ready    a request failed in a doubtful way, and a canary passed since
 *   any → restarting            it died, was killed, or did not get ready; started again after a delay
 *   any → failed                the same after several quick tries, or its canary drew another picture
 *   any → stopped               the node stops
 *
 * `failed` is a report, not an end: starts go on, slower, for ever. Only `ready` takes work.
 */
import { access, rm } from 'node:fs/promises';
import type { engine } from '#contracts';
import { type Clock, Code, type Emit, type Random, Reason, StatusError } from '#core';
import { fullName, modelInfoOf, modelUnusable } from '#model-package';
import type { CostEstimate } from '../domain/cost-estimate.js';
import { QUICK_TRIES, type RestartPolicy, restartDelayMs } from '../domain/restart-delay.js';
import type { NodeEvent } from '../events.js';
import { drawCanary } from './canary.js';
import { type Catalogue, type CatalogueModel, type ModelFolder, notLoadable } from './catalogue.js';
import { EngineChild } from './child.js';
import { EngineConnection, engineCrashed } from './connection.js';
import { parseLogLine } from './log-line.js';

export interface SupervisorOptions {
  readonly command: readonly [string, ...string[]];
  /** The engine's environment, its socket aside; asked at each start. */
  readonly env: () => Readonly<Record<string, string | undefined>>;
  /** A fresh path for the unix socket of one engine process. */
  readonly socketPath: (startCount: number) => string;
  readonly catalogue: Catalogue;
  readonly clock: Clock;
  readonly random: Random;
  readonly emit: Emit<NodeEvent>;
  readonly estimate: CostEstimate;
  readonly restart: RestartPolicy;
  /** A life of this length forgives the failures before it. */
  readonly stableAfterMs: number;
  readonly startTimeoutMs: number;
  readonly loadTimeoutMs: number;
  readonly canaryTimeoutMs: number;
  readonly stopGraceMs: number;
  /** Digest that canaries of the first folder's model must have; otherwise, and for other models, that of the first one counts. */
  readonly canaryDigest: string | undefined;
  readonly onChange: () => void;
}

/** An engine process that answers. */
export interface LiveEngine {
  readonly connection: EngineConnection;
  readonly name: string;
  readonly version: string;
  /** Takes a running request aside and goes on with it later. */
  readonly canPause: boolean;
  /** Reads the text of the next request beside the one that runs. */
  readonly canPrepare: boolean;
  /** Aborts with ENGINE_CRASHED when the process is gone. */
  readonly gone: AbortSignal;
}

export type EnginePhase = 'starting' | 'checking' | 'ready' | 'restarting' | 'failed' | 'stopped';

type Verdict = { readonly kind: 'suspect' | 'condemn' | 'reload'; readonly why: string };

/** Why a life ended, when not by our own stop. */
class LifeEnded extends Error {
  constructor(
    readonly why: string,
    readonly kind: 'died' | 'wrong-canary' | 'reload',
    options?: ErrorOptions,
  ) {
    super(why, options);
  }
}

export class Supervisor {
  readonly #options: SupervisorOptions;
  readonly #stopping = new AbortController();
  readonly #digests = new Map<string, string>();
  #phase: EnginePhase = 'starting';
  #live: LiveEngine | undefined;
  #last: LiveEngine | undefined;
  #startCount = 0;
  #verdicts: Verdict[] = [];
  #onVerdict: () => void = () => {};
  #supervising: Promise<void> | undefined;

  constructor(options: SupervisorOptions) {
    this.#options = options;
  }

  get phase(): EnginePhase {
    return this.#phase;
  }

  /** The engine that may draw now; undefined unless ready. */
  get engine(): LiveEngine | undefined {
    return this.#phase === 'ready' ? this.#live : undefined;
  }

  /** The engine as it last was, for reports and for validation while it restarts. */
  get known(): LiveEngine | undefined {
    return this.#live ?? this.#last;
  }

  /** Starts after the first. */
  get restartCount(): number {
    return Math.max(0, this.#startCount - 1);
  }

  start(): void {
    this.#supervising ??= this.#supervise();
  }

  async stop(): Promise<void> {
    this.#stopping.abort(new StatusError({ code: Code.UNAVAILABLE, reason: Reason.DRAINING, message: 'this node is stopping' }));
    await this.#supervising;
    this.#become('stopped');
  }

  /** A request failed in a way that casts doubt: no work until a canary has passed. */
  suspect(engine: LiveEngine, why: string): void {
    if (engine !== this.#live || this.#phase !== 'ready') return;
    this.#options.emit({ type: 'engineSuspected', why });
    this.#become('checking');
    this.#judge({ kind: 'suspect', why });
  }

  /** It does not stop or does not move: SIGKILL, then a new one. */
  condemn(engine: LiveEngine, why: string): void {
    if (engine !== this.#live) return;
    this.#become('restarting');
    this.#judge({ kind: 'condemn', why });
  }

  /**
   * Loads a model, and frees the longest unused ones where there is no room. The caller sees to it that nothing runs.
   * Throws UNAVAILABLE/MODEL_UNUSABLE: another node may do better.
   */
  async load(engine: LiveEngine, model: CatalogueModel): Promise<void> {
    const name = fullName(model.info);
    let info: CatalogueModel['info'];
    try {
      info = await this.#load(engine, model, AbortSignal.any([engine.gone, this.#stopping.signal]));
    } catch (thrown) {
      const why = thrown instanceof Error ? thrown.message : String(thrown);
      // Silence or a wrong picture: whatever the model is worth, this process is not to be trusted.
      if (!isRefusal(thrown)) this.condemn(engine, `loading ${name}: ${why}`);
      throw notLoadable(`${name}: ${why}`, thrown);
    }
    if (fullName(info) !== name) throw notLoadable(`its folder holds ${fullName(info)} now, not ${name}`);
  }

  /** A new process with a freshly read model folder. The caller sees to it that nothing runs. */
  reload(): void {
    if (this.#phase === 'ready') this.#become('restarting');
    this.#judge({ kind: 'reload', why: 'asked to reload' });
  }

  async #supervise(): Promise<void> {
    const { clock, emit, random, restart, stableAfterMs } = this.#options;
    let failureCount = 0;
    while (!this.#stopping.signal.aborted) {
      const startedAt = clock.now();
      const ended = await this.#liveOnce();
      if (this.#stopping.signal.aborted) break;
      if (ended.kind === 'reload') continue;
      failureCount = clock.now() - startedAt >= stableAfterMs ? 1 : failureCount + 1;
      const delayMs = restartDelayMs(failureCount, restart, random);
      this.#become(ended.kind === 'wrong-canary' || failureCount > QUICK_TRIES ? 'failed' : 'restarting');
      emit({ type: 'engineLost', why: ended.why, failureCount, delayMs });
      await clock.sleep(delayMs, this.#stopping.signal).catch(() => {}); // woken by stop
    }
    emit({ type: 'engineStopped' });
  }

  /** From spawn to the end of the process. Never rejects. */
  async #liveOnce(): Promise<LifeEnded> {
    const { command, clock, emit, stopGraceMs } = this.#options;
    const startCount = ++this.#startCount;
    const socketPath = this.#options.socketPath(startCount);
    const child = new EngineChild({
      command,
      env: { ...this.#options.env(), DMESH_ENGINE_SOCKET: socketPath },
      onLine: (line, stream) => emit({ type: 'engineLogged', ...parseLogLine(line, stream) }),
    });
    emit({ type: 'engineStarted', pid: child.pid, startCount });
    const connection = new EngineConnection(socketPath, clock);
    const gone = new AbortController();
    void child.exited.then((how) => gone.abort(engineCrashed(new LifeEnded(how, 'died'))));
    try {
      return await this.#serve(connection, gone.signal);
    } catch (thrown) {
      return lifeEnded(gone.signal.aborted ? gone.signal.reason : thrown);
    } finally {
      if (this.#live) this.#become('restarting');
      this.#live = undefined;
      this.#options.catalogue.emptied();
      this.#verdicts = [];
      if (this.#stopping.signal.aborted) await child.stop(clock, stopGraceMs);
      child.signal('SIGKILL');
      await child.exited;
      connection.close();
      await rm(socketPath, { force: true });
    }
  }

  /** Brings the engine up and watches over it; returns or rejects when its life is to end. */
  async #serve(connection: EngineConnection, gone: AbortSignal): Promise<LifeEnded> {
    const { catalogue, clock, emit } = this.#options;
    const startedAt = clock.now();
    const signal = AbortSignal.any([gone, this.#stopping.signal]);
    const engine = await this.#bringUp(connection, gone, signal);
    this.#live = engine;
    this.#last = engine;
    emit({ type: 'engineReady', engine: engine.name, model: catalogue.newest?.info.name ?? '', tookMs: clock.now() - startedAt });
    for (;;) {
      if (this.#verdicts.length === 0) this.#become('ready');
      const { kind, why } = await this.#nextVerdict(signal);
      if (kind === 'reload') {
        catalogue.forgive();
        return new LifeEnded(why, 'reload');
      }
      if (kind === 'condemn') {
        emit({ type: 'engineKilled', why });
        return new LifeEnded(why, 'died');
      }
      // With nothing loaded there is nothing to doubt: the next load draws its canary.
      if (catalogue.newest) await this.#check(engine, catalogue.newest, signal);
    }
  }

  async #bringUp(connection: EngineConnection, gone: AbortSignal, signal: AbortSignal): Promise<LiveEngine> {
    const { catalogue, startTimeoutMs } = this.#options;
    await this.#untilListening(signal);
    await connection.status(signal, startTimeoutMs); // the first answer of a program may take its time on a busy machine
    await catalogue.read();
    let failure: unknown;
    for (const folder of catalogue.toStartWith()) {
      await this.#load({ connection, gone }, folder, signal).catch((thrown) => {
        failure ??= thrown;
        if (!isRefusal(thrown)) throw thrown;
      });
    }
    if (!catalogue.newest) throw failure;
    catalogue.report();
    const { engine: name, version, canPause, canPrepare } = await connection.status(signal);
    return { connection, name, version, canPause, canPrepare, gone };
  }

  async #load(engine: Pick<LiveEngine, 'connection' | 'gone'>, folder: ModelFolder, signal: AbortSignal): Promise<CatalogueModel['info']> {
    const { catalogue, clock, emit, loadTimeoutMs: timeoutMs } = this.#options;
    const { connection } = engine;
    const startedAt = clock.now();
    try {
      const unload = async (leaving: CatalogueModel['info']) => {
        await connection.unload(leaving, { timeoutMs, signal });
        emit({ type: 'modelUnloaded', model: leaving.name, revision: leaving.revision });
      };
      const load = async (): Promise<engine.LoadResponse> => {
        try {
          return await connection.load(folder.dir, { timeoutMs, signal });
        } catch (thrown) {
          const leaving = isShortOfMemory(thrown) ? catalogue.giveWay(folder) : undefined;
          if (!leaving) throw thrown;
          await unload(leaving);
          return load();
        }
      };
      for (const leaving of catalogue.begin(folder)) await unload(leaving);
      const { model } = await load();
      const info = model && modelInfoOf(model);
      if (!info) throw modelUnusable('the engine loaded a model without defaults or limits');
      const { determinismClass } = await connection.status(signal);
      await this.#check(engine, { dir: folder.dir, info, determinismClass }, signal);
      const tookMs = clock.now() - startedAt;
      catalogue.loaded(folder, { info, determinismClass, tookMs });
      emit({ type: 'modelLoaded', model: info.name, revision: info.revision, tookMs });
      return info;
    } catch (thrown) {
      if (engine.gone.aborted || isLoss(thrown)) catalogue.crashed(folder);
      else if (!this.#stopping.signal.aborted) catalogue.unusable(folder, thrown instanceof Error ? thrown.message : String(thrown));
      throw thrown;
    }
  }

  async #untilListening(signal: AbortSignal): Promise<void> {
    const { clock, startTimeoutMs } = this.#options;
    const socketPath = this.#options.socketPath(this.#startCount);
    const giveUpAt = clock.now() + startTimeoutMs;
    for (;;) {
      signal.throwIfAborted();
      if (await exists(socketPath)) return;
      if (clock.now() >= giveUpAt) throw new LifeEnded(`the engine did not listen within ${startTimeoutMs} ms`, 'died');
      await clock.sleep(SOCKET_POLL_MS, signal);
    }
  }

  async #check(
    { connection }: Pick<LiveEngine, 'connection'>,
    model: Pick<CatalogueModel, 'dir' | 'info' | 'determinismClass'>,
    signal: AbortSignal,
  ): Promise<void> {
    const { catalogue, canaryDigest, clock, emit, estimate, canaryTimeoutMs: timeoutMs } = this.#options;
    const { digest, cost, tookMs } = await drawCanary({ connection, model: model.info, clock, timeoutMs, signal });
    estimate.guess(cost, tookMs);
    const key = `${model.determinismClass} ${fullName(model.info)}`;
    const expected = (catalogue.isFirst(model) ? canaryDigest : undefined) ?? this.#digests.get(key) ?? digest;
    const passed = digest === expected;
    emit({ type: 'canaryDrawn', passed, digest, expected, tookMs });
    if (!passed) throw new LifeEnded(`the canary drew ${digest}, expected ${expected}`, 'wrong-canary');
    this.#digests.set(key, digest);
  }

  #judge(verdict: Verdict): void {
    this.#verdicts.push(verdict);
    this.#onVerdict();
  }

  #nextVerdict(signal: AbortSignal): Promise<Verdict> {
    return new Promise((resolve, reject) => {
      const onAbort = () => {
        this.#onVerdict = () => {};
        reject(signal.reason);
      };
      const take = () => {
        const verdict = this.#verdicts.shift();
        if (!verdict) return;
        // Taken once: a verdict that comes while this one is carried out waits for its turn.
        this.#onVerdict = () => {};
        signal.removeEventListener('abort', onAbort);
        resolve(verdict);
      };
      signal.addEventListener('abort', onAbort, { once: true });
      this.#onVerdict = take;
      if (signal.aborted) onAbort();
      else take();
    });
  }

  #become(phase: EnginePhase): void {
    if (phase === this.#phase || this.#phase === 'stopped') return;
    this.#phase = phase;
    this.#options.onChange();
  }
}

/** The engine said no, in time: it can go on without this model. */
function isRefusal(thrown: unknown): boolean {
  return thrown instanceof StatusError && thrown.reason !== Reason.DEADLINE && !isLoss(thrown);
}

function isShortOfMemory(thrown: unknown): boolean {
  return thrown instanceof StatusError && thrown.reason === Reason.OUT_OF_MEMORY;
}

function isLoss(thrown: unknown): boolean {
  return thrown instanceof StatusError && LOSSES.has(thrown.reason);
}
const LOSSES: ReadonlySet<string> = new Set([Reason.CONNECTION_LOST, Reason.CONNECT_FAILED, Reason.ENGINE_CRASHED]);

const SOCKET_POLL_MS = 10;

async function exists(file: string): Promise<boolean> {
  return access(file).then(
    () => true,
    () => false,
  );
}

function lifeEnded(thrown: unknown): LifeEnded {
  if (thrown instanceof LifeEnded) return thrown;
  const cause = thrown instanceof Error ? thrown.cause : undefined;
  if (cause instanceof LifeEnded) return cause;
  return new LifeEnded(thrown instanceof Error ? thrown.message : String(thrown), 'died', { cause: thrown });
}
