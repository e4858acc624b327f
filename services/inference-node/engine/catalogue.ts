/**
 * Which models can this node draw with, which of them are in the engine's memory, and how long does
 * each of the others take to load?
 *
 *   offered ── loading began ──► loaded ── its room is needed, or the engine's life ended ──► offered
 *   offered or loaded ── folder or load no good ──► unusable ── a reload, or nothing else is left ──► offered
 *
 * A model counts as loaded from the moment its load begins: whoever wants it next waits for no second one.
 */
import { readdir, stat } from 'node:fs/promises';
import path from 'node:path';
import { Code, type Emit, Reason, StatusError } from '#core';
import { fullName, type ModelInfo, readModelPackage } from '#model-package';
import type { NodeEvent } from '../events.js';

export interface CatalogueOptions {
  /** Model folders; the first is loaded at start. */
  readonly dirs: readonly string[];
  /** So many models are in the engine's memory at once. */
  readonly loadedLimit: number;
  readonly emit: Emit<NodeEvent>;
  /** What routers know of models has changed. */
  readonly onChange: () => void;
}

export interface ModelFolder {
  /** Absolute; names it within this node. */
  readonly dir: string;
}

/** One folder that was read, or that the engine could load. */
export interface CatalogueModel extends ModelFolder {
  readonly info: ModelInfo;
  readonly loaded: boolean;
  /** How long a request that needs it waits until it is loaded: as last measured, or guessed from its size. Milliseconds. */
  readonly loadMs: number;
  /** Of its last load; empty before. */
  readonly determinismClass: string;
}

interface Entry {
  readonly dir: string;
  info: ModelInfo | undefined;
  byteCount: number;
  measuredMs: number | undefined;
  determinismClass: string;
  loaded: boolean;
  /** Order of use; 0: never loaded. */
  usedAt: number;
  /** Its folder cannot be read, or is another model's twin. */
  folderFault: string | undefined;
  /** The engine could not load it. */
  loadFault: string | undefined;
  /** Lives of the engine that ended while it was loaded, one after the other. */
  crashCount: number;
  reported: string | undefined;
}

/** Before anything was loaded: 1 GB a second, from a local disk into a GPU. */
const PRIOR_MS_PER_BYTE = 1e-6;
/** As long as names may be, and as much of what is none as is repeated. */
const MAX_NAME_CHARS = 128;
/** One crash may be chance. */
const CRASH_LIMIT = 2;

export class Catalogue {
  readonly #options: CatalogueOptions;
  readonly #entries: readonly Entry[];
  #useCount = 0;
  #msPerByte = PRIOR_MS_PER_BYTE;

  constructor(options: CatalogueOptions) {
    this.#options = options;
    this.#entries = options.dirs.map((dir) => ({
      dir,
      info: undefined,
      byteCount: 0,
      measuredMs: undefined,
      determinismClass: '',
      loaded: false,
      usedAt: 0,
      folderFault: undefined,
      loadFault: undefined,
      crashCount: 0,
      reported: undefined,
    }));
  }

  /** Those that can be served, in the order of the folders. */
  get models(): readonly CatalogueModel[] {
    return this.#entries.flatMap((entry) => this.#shown(entry) ?? []);
  }

  /** The one used last of those that are loaded. */
  get newest(): CatalogueModel | undefined {
    const entry = this.#loaded().at(-1);
    return entry && this.#shown(entry);
  }

  get unusableCount(): number {
    return this.#entries.filter(faultOf).length;
  }

  /** Whether it is the model of the first folder. */
  isFirst(model: ModelFolder): boolean {
    return this.#entries[0]?.dir === model.dir;
  }

  /** Reads the folders of what is not loaded. Never rejects: what is wrong is told by `report`. */
  async read(): Promise<void> {
    for (const { dir, info, fault } of twinsOf(await Promise.all(this.#entries.map((entry) => readInfo(entry.dir))))) {
      const entry = this.#of({ dir });
      if (entry.loaded) continue;
      // What an engine could load before it will tell itself: it may take more for a folder than this node does.
      entry.folderFault = entry.usedAt > 0 && !info ? undefined : fault;
      if (!info) continue;
      entry.info = info;
      entry.byteCount = await folderBytes(entry.dir);
    }
    this.#options.onChange();
  }

  /** What a request asks for; '' for the name: the only one, '' for the revision: one that is loaded, else the first. */
  find(name: string, revision: string): CatalogueModel {
    const { models } = this;
    const names = new Set(models.map(({ info }) => info.name));
    const wanted = name === '' && names.size === 1 ? [...names][0] : name;
    const named = models.filter(({ info }) => info.name === wanted && (revision === '' || info.revision === revision));
    const found = named.find(({ loaded }) => loaded) ?? named[0];
    if (found) return found;
    const faulty = this.#entries.find(({ info }) => info?.name === wanted && (revision === '' || info?.revision === revision));
    throw faulty ? notLoadable(faultOf(faulty) ?? 'it has none of that revision') : unknownModel(wanted ?? '', revision, models);
  }

  /** The same as it is now; undefined when it is not offered any more. */
  latest(model: ModelFolder): CatalogueModel | undefined {
    return this.#shown(this.#of(model));
  }

  /** What an engine that has just started loads, one after the other: what it had last, else the first that can be loaded. */
  *toStartWith(): Generator<ModelFolder, void> {
    const { loadedLimit } = this.#options;
    const used = this.#entries.filter((entry) => entry.usedAt > 0 && faultOf(entry) === undefined).sort(byUse);
    const last = used.slice(-loadedLimit);
    yield* last;
    // Also one whose folder cannot be read here: the engine may know what to do with its name.
    const rest = this.#entries.filter((entry) => !last.includes(entry));
    for (const entry of [...rest.filter((one) => !one.loadFault), ...rest.filter((one) => one.loadFault)]) {
      if (this.#loaded().length > 0) return;
      yield entry;
    }
  }

  /** Its load begins. Returns what has to leave the engine first, the longest unused. */
  begin(model: ModelFolder): readonly ModelInfo[] {
    const { loadedLimit, onChange } = this.#options;
    const entry = this.#of(model);
    const others = this.#loaded().filter((other) => other !== entry);
    const leaving = others.slice(0, Math.max(0, others.length + 1 - loadedLimit));
    for (const other of leaving) other.loaded = false;
    entry.loaded = true;
    onChange();
    return leaving.flatMap(({ info }) => info ?? []);
  }

  /** There is less memory than places: what leaves the engine for this model, the longest unused; undefined when nothing else is loaded. */
  giveWay(model: ModelFolder): ModelInfo | undefined {
    const entry = this.#of(model);
    const leaving = this.#loaded().find((other) => other !== entry);
    if (!leaving) return undefined;
    leaving.loaded = false;
    this.#options.onChange();
    return leaving.info;
  }

  /** It is loaded, and draws what it should. */
  loaded(model: ModelFolder, now: { info: ModelInfo; determinismClass: string; tookMs: number }): void {
    const entry = this.#of(model);
    entry.info = now.info;
    entry.determinismClass = now.determinismClass;
    entry.measuredMs = now.tookMs;
    entry.folderFault = entry.loadFault = undefined;
    entry.crashCount = 0;
    entry.usedAt = ++this.#useCount;
    if (entry.byteCount > 0) this.#msPerByte = now.tookMs / entry.byteCount;
    this.#options.onChange();
  }

  used(model: ModelFolder): void {
    this.#of(model).usedAt = ++this.#useCount;
  }

  /** The engine could not load it: not offered any more. */
  unusable(model: ModelFolder, why: string): void {
    const entry = this.#of(model);
    entry.loaded = false;
    entry.loadFault = why;
    this.report();
    // A node that offers nothing looks like a stranger to routers; what it has may work another time.
    if (this.#entries.every(faultOf)) this.forgive();
    this.#options.onChange();
  }

  /** The engine's life ended while it loaded this. */
  crashed(model: ModelFolder): void {
    const entry = this.#of(model);
    entry.crashCount++;
    if (entry.crashCount >= CRASH_LIMIT) this.unusable(model, `the engine ended ${entry.crashCount} times while it loaded it`);
  }

  /** The engine's life is over, and its memory with it. */
  emptied(): void {
    for (const entry of this.#entries) entry.loaded = false;
  }

  /** Everything may be tried again. */
  forgive(): void {
    for (const entry of this.#entries) {
      entry.loadFault = undefined;
      entry.crashCount = 0;
    }
  }

  /** Tells what cannot be served and was not told yet. */
  report(): void {
    for (const entry of this.#entries) {
      const why = faultOf(entry);
      if (why !== undefined && why !== entry.reported) this.#options.emit({ type: 'modelUnusable', dir: entry.dir, why });
      entry.reported = why;
    }
  }

  /** From the longest unused on. */
  #loaded(): Entry[] {
    return this.#entries.filter(({ loaded }) => loaded).sort(byUse);
  }

  #of({ dir }: ModelFolder): Entry {
    const entry = this.#entries.find((each) => each.dir === dir);
    if (!entry) throw new Error(`expected a folder of this node, got ${dir}`);
    return entry;
  }

  #shown(entry: Entry): CatalogueModel | undefined {
    const { dir, info, loaded, measuredMs, byteCount, determinismClass } = entry;
    if (!info || faultOf(entry) !== undefined) return undefined;
    return { dir, info, loaded, loadMs: Math.ceil(measuredMs ?? this.#msPerByte * byteCount), determinismClass };
  }
}

/** What is wrong with folders that hold the same model in the same revision: nobody could tell which one is meant. */
export async function twinFaults(dirs: readonly string[]): Promise<string[]> {
  const read = twinsOf(await Promise.all(dirs.map(readInfo)));
  return read.flatMap(({ info, fault }, i) => (info && fault !== undefined ? [`${dirs[i]}: ${fault}`] : []));
}

interface Read {
  readonly dir: string;
  readonly info: ModelInfo | undefined;
  readonly fault: string | undefined;
}

async function readInfo(dir: string): Promise<Read> {
  try {
    return { dir, info: (await readModelPackage(dir)).info, fault: undefined };
  } catch (thrown) {
    return { dir, info: undefined, fault: StatusError.from(thrown).message };
  }
}

/** Of two of the same name and revision the first counts. */
function twinsOf(folders: readonly Read[]): Read[] {
  return folders.map((folder, i) => {
    const { info } = folder;
    const twin = info && folders.slice(0, i).find((other) => other.info && fullName(other.info) === fullName(info));
    return twin && info ? { ...folder, fault: `it holds ${fullName(info)}, as ${twin.dir} does` } : folder;
  });
}

/** Of all files; what cannot be looked at counts nothing, as the size is only for a guess. */
async function folderBytes(dir: string): Promise<number> {
  const files = await readdir(dir, { recursive: true, withFileTypes: true }).catch(() => []);
  const sizes = files.map((file) =>
    stat(path.join(file.parentPath, file.name)).then(
      (found) => (found.isFile() ? found.size : 0),
      () => 0,
    ),
  );
  return (await Promise.all(sizes)).reduce((sum, bytes) => sum + bytes, 0);
}

function faultOf(entry: Entry): string | undefined {
  return entry.loadFault ?? entry.folderFault;
}

function byUse(a: Entry, b: Entry): number {
  return a.usedAt - b.usedAt;
}

/** Other nodes may be able to: a request that gets this is tried elsewhere. */
export function notLoadable(why: string, cause?: unknown): StatusError {
  return new StatusError({
    code: Code.UNAVAILABLE,
    reason: Reason.MODEL_UNUSABLE,
    message: `this node cannot load the model: ${why}`,
    cause,
  });
}

function unknownModel(name: string, revision: string, models: readonly CatalogueModel[]): StatusError {
  const asked = (revision === '' ? name : fullName({ name, revision })).slice(0, MAX_NAME_CHARS);
  const served = models.map(({ info }) => (revision === '' ? info.name : fullName(info))).join(', ') || 'none';
  return new StatusError({
    code: Code.NOT_FOUND,
    reason: Reason.UNKNOWN_MODEL,
    message: `expected the model ${served}, got ${JSON.stringify(asked)}`,
    resource: { type: 'model', name: asked, description: `this node serves ${served}` },
  });
}
