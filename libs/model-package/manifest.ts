/**
 * Is this text a mesh.json, and what does it say? Checked by hand, field by field, every fault at
 * once, since people write these files.
 */
import { modelFaults } from './model-faults.js';
import type { ModelInfo } from './model-info.js';

export interface Manifest {
  readonly info: ModelInfo;
  /** Adapter name to its file, relative to the model folder. */
  readonly loraFiles: ReadonlyMap<string, string>;
  /** Relative path to SHA-256 in hex. */
  readonly digests: ReadonlyMap<string, string>;
}

export type ManifestResult =
  | { readonly ok: true; readonly manifest: Manifest }
  | { readonly ok: false; readonly faults: readonly string[] };

type Json = Readonly<Record<string, unknown>>;

const NAME = /^[A-Za-z0-9._:-]{1,128}$/;
const SHA256 = /^[0-9a-f]{64}$/;

export function parseManifest(text: string): ManifestResult {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    return { ok: false, faults: [`expected JSON, ${error instanceof Error ? error.message : 'got something else'}`] };
  }
  const read = new Fields(json);
  const loras = read.list('loras').map((entry, i) => ({
    name: entry.text(`loras[${i}].name`, 'name', NAME),
    file: entry.text(`loras[${i}].file`, 'file'),
    description: entry.text(`loras[${i}].description`, 'description'),
  }));
  const info: ModelInfo = {
    name: read.text('name', 'name', NAME),
    revision: read.text('revision'),
    family: read.text('family'),
    languages: read.texts('languages'),
    defaults: readDefaults(read.object('defaults')),
    limits: readLimits(read.object('limits')),
    negativePrompt: read.boolean('negativePrompt'),
    loras: loras.map(({ name, description }) => ({ name, description })),
  };
  // A faulty field reads as something harmless, about which there is nothing more to say.
  const senseless = read.faults.length > 0 ? [] : modelFaults(info);
  const faults = [...read.faults, ...senseless, ...strayPaths(loras.map((lora) => lora.file))];
  const digests = readDigests(read.object('digests', {}), faults);
  if (faults.length > 0) return { ok: false, faults };
  return { ok: true, manifest: { info, loraFiles: new Map(loras.map(({ name, file }) => [name, file])), digests } };
}

function readDefaults(read: Fields): ModelInfo['defaults'] {
  return {
    width: read.natural('width'),
    height: read.natural('height'),
    steps: read.natural('steps'),
    guidanceScale: read.number('guidanceScale'),
  };
}

function readLimits(read: Fields): ModelInfo['limits'] {
  return {
    sizeMultiple: read.natural('sizeMultiple'),
    minWidth: read.natural('minWidth'),
    maxWidth: read.natural('maxWidth'),
    minHeight: read.natural('minHeight'),
    maxHeight: read.natural('maxHeight'),
    minSteps: read.natural('minSteps'),
    maxSteps: read.natural('maxSteps'),
    minGuidanceScale: read.number('minGuidanceScale'),
    maxGuidanceScale: read.number('maxGuidanceScale'),
    maxImageCount: read.natural('maxImageCount'),
    maxPromptTokens: read.natural('maxPromptTokens'),
    maxLoras: read.natural('maxLoras', 0),
    minLoraStrength: read.number('minLoraStrength'),
    maxLoraStrength: read.number('maxLoraStrength'),
  };
}

/** Adapters are files inside the folder. */
function strayPaths(files: readonly string[]): string[] {
  return files
    .filter((file) => file.startsWith('/') || file.split(/[\\/]/).includes('..'))
    .map((file) => `loras: ${file} leads out of the folder`);
}

function readDigests(read: Fields, faults: string[]): Map<string, string> {
  const digests = new Map<string, string>();
  for (const [file, digest] of Object.entries(read.json)) {
    if (typeof digest === 'string' && SHA256.test(digest)) digests.set(file, digest);
    else faults.push(`digests.${file}: expected a SHA-256 in hex, got ${JSON.stringify(digest)}`);
  }
  return digests;
}

/** Reads fields of one object and collects what is wrong; a faulty field reads as something harmless. */
class Fields {
  readonly json: Json;

  constructor(
    value: unknown,
    readonly faults: string[] = [],
    private readonly path = '',
  ) {
    if (isObject(value)) this.json = value;
    else {
      this.json = {};
      this.faults.push(`${path === '' ? 'the file' : path.slice(0, -1)}: expected an object, got ${JSON.stringify(value)}`);
    }
  }

  object(key: string, fallback?: Json): Fields {
    return new Fields(this.json[key] ?? fallback, this.faults, `${this.path}${key}.`);
  }

  list(key: string): Fields[] {
    const value = this.json[key];
    if (Array.isArray(value)) return value.map((entry, i) => new Fields(entry, this.faults, `${this.path}${key}[${i}].`));
    this.#fault(key, 'a list', value);
    return [];
  }

  text(path: string, key = path, pattern = /./): string {
    const value = this.json[key];
    if (typeof value === 'string' && pattern.test(value)) return value;
    this.faults.push(`${path}: expected a text${pattern === NAME ? ` like ${NAME.source}` : ''}, got ${JSON.stringify(value)}`);
    return '';
  }

  texts(key: string): string[] {
    const value = this.json[key];
    if (Array.isArray(value) && value.every((entry) => typeof entry === 'string')) return value;
    this.#fault(key, 'a list of texts', value);
    return [];
  }

  boolean(key: string): boolean {
    const value = this.json[key];
    if (typeof value !== 'boolean') this.#fault(key, 'true or false', value);
    return value === true;
  }

  natural(key: string, min = 1): number {
    const value = this.json[key];
    if (typeof value === 'number' && Number.isSafeInteger(value) && value >= min) return value;
    return this.#fault(key, `an integer from ${min}`, value);
  }

  number(key: string): number {
    const value = this.json[key];
    if (typeof value === 'number' && Number.isFinite(value)) return value;
    return this.#fault(key, 'a number', value);
  }

  #fault(key: string, expected: string, got: unknown): number {
    this.faults.push(`${this.path}${key}: expected ${expected}, got ${JSON.stringify(got)}`);
    return 0;
  }
}

function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
