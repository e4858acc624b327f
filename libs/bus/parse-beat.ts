/**
 * Is this a beat? Total and cheap: a thousand nodes beat every second, and anybody on NATS can send
 * anything. Checks by hand what a router relies on (a missing limit would become NaN in a cost; a figure
 * that the contract's field cannot hold would break the list of all nodes), lets unknown fields pass so
 * that newer nodes may say more, and names the first fault instead of throwing.
 */
import { type ModelInfo, modelFaults } from '#model-package';
import type { Beat, Leave } from './beat.js';
import type { Replica } from './replicas.js';
import { isNodeId } from './subjects.js';

export type Parsed<T> = { readonly kind: 'ok'; readonly value: T } | { readonly kind: 'garbage'; readonly fault: string };

/** A beat of a node with a dozen models stays under 16 KiB. */
const MAX_BEAT_BYTES = 256 * 1024;

type Fields = Readonly<Record<string, unknown>>;

export function parseBeat(bytes: Uint8Array): Parsed<Beat> {
  return parse(bytes, isBeat);
}

export function parseLeave(bytes: Uint8Array): Parsed<Leave> {
  return parse(bytes, isLeave);
}

export function parseReplica(bytes: Uint8Array): Parsed<Replica> {
  return parse(bytes, isReplica);
}

export function parseReplicaLeave(bytes: Uint8Array): Parsed<Pick<Replica, 'id' | 'incarnation'>> {
  return parse(bytes, isReplicaLeave);
}

/** Where the first fault is; one object for all calls, since nothing here waits. */
const fault = { text: '' };

function parse<T>(bytes: Uint8Array, accepts: (value: unknown) => value is T): Parsed<T> {
  if (bytes.length > MAX_BEAT_BYTES) return { kind: 'garbage', fault: `${bytes.length} bytes, expected at most ${MAX_BEAT_BYTES}` };
  let value: unknown;
  try {
    value = JSON.parse(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('utf8'));
  } catch {
    return { kind: 'garbage', fault: 'not JSON' };
  }
  return accepts(value) ? { kind: 'ok', value } : { kind: 'garbage', fault: fault.text };
}

function isLeave(value: unknown): value is Leave {
  return isFields(value, 'leave') && nodeId(value) && filled(value, 'incarnation');
}

function isReplica(value: unknown): value is Replica {
  return isReplicaLeave(value) && isReachable({ ...value });
}

function isReachable(fields: Fields): boolean {
  return isAddress(fields) && (fields.draining === undefined || flag(fields, 'draining'));
}

function isReplicaLeave(value: unknown): value is Pick<Replica, 'id' | 'incarnation'> {
  return isFields(value, 'replica') && replicaId(value) && filled(value, 'incarnation');
}

function isBeat(value: unknown): value is Beat {
  return (
    isFields(value, 'beat') &&
    nodeId(value) &&
    filled(value, 'incarnation') &&
    count(value, 'seq') &&
    isAddress(value) &&
    text(value, 'zone') &&
    isEngine(value.engine) &&
    listOf(value, 'models', isModel) &&
    uint32(value, 'slotCount') &&
    uint32(value, 'busyCount') &&
    listOf(value, 'running', isRunning) &&
    flag(value, 'draining') &&
    (value.gpu === null || isGpu(value.gpu)) &&
    count(value, 'completedCount') &&
    count(value, 'failedCount')
  );
}

function isEngine(value: unknown): boolean {
  return (
    isFields(value, 'engine') &&
    text(value, 'name') &&
    text(value, 'version') &&
    (ENGINE_STATES.has(value.state) || wrong('engine.state', value.state)) &&
    text(value, 'determinismClass') &&
    count(value, 'restartCount')
  );
}
const ENGINE_STATES: ReadonlySet<unknown> = new Set(['starting', 'ready', 'restarting', 'failed']);

const DEFAULTS = ['width', 'height', 'steps', 'guidanceScale'] as const satisfies readonly (keyof ModelInfo['defaults'])[];
const LIMITS = [
  'sizeMultiple',
  'minWidth',
  'maxWidth',
  'minHeight',
  'maxHeight',
  'minSteps',
  'maxSteps',
  'minGuidanceScale',
  'maxGuidanceScale',
  'maxImageCount',
  'maxPromptTokens',
  'maxLoras',
  'minLoraStrength',
  'maxLoraStrength',
] as const satisfies readonly (keyof ModelInfo['limits'])[];

function isModel(value: unknown): boolean {
  return (
    isFields(value, 'model') &&
    filled(value, 'name') &&
    text(value, 'revision') &&
    text(value, 'family') &&
    listOf(value, 'languages', isText) &&
    numbers(value, 'defaults', DEFAULTS) &&
    numbers(value, 'limits', LIMITS) &&
    flag(value, 'negativePrompt') &&
    listOf(value, 'loras', isLora) &&
    (value.loaded === undefined || flag(value, 'loaded')) &&
    (value.loadMs === undefined || uint32(value, 'loadMs')) &&
    makesSense(value as Pick<ModelInfo, 'defaults' | 'limits'> & Fields)
  );
}

function makesSense(model: Pick<ModelInfo, 'defaults' | 'limits'>): boolean {
  const [first] = modelFaults(model);
  return first === undefined || wrong(first);
}

function isLora(value: unknown): boolean {
  return isFields(value, 'lora') && filled(value, 'name') && text(value, 'description');
}

function isRunning(value: unknown): boolean {
  return (
    isFields(value, 'running') &&
    text(value, 'requestId') &&
    uint32(value, 'step') &&
    uint32(value, 'total') &&
    number(value, 'remainingMs') &&
    (value.paused === undefined || flag(value, 'paused'))
  );
}

function isGpu(value: unknown): boolean {
  return (
    isFields(value, 'gpu') &&
    text(value, 'uuid') &&
    text(value, 'name') &&
    count(value, 'memoryTotalBytes') &&
    count(value, 'memoryUsedBytes') &&
    (value.memoryPeakBytes === undefined || count(value, 'memoryPeakBytes')) &&
    ratio(value, 'utilisationRatio') &&
    number(value, 'temperatureCelsius')
  );
}

function isFields(value: unknown, what: string): value is Fields {
  return (typeof value === 'object' && value !== null && !Array.isArray(value)) || wrong(what, value);
}

function nodeId(fields: Fields): boolean {
  return (typeof fields.nodeId === 'string' && isNodeId(fields.nodeId)) || wrong('nodeId', fields.nodeId);
}

function replicaId(fields: Fields): boolean {
  return (typeof fields.id === 'string' && isNodeId(fields.id)) || wrong('id', fields.id);
}

/** A channel throws on what is none. */
const ADDRESS = /^[\x21-\x7e]+:\d{1,5}$/;

function isAddress(fields: Fields): boolean {
  return (typeof fields.address === 'string' && ADDRESS.test(fields.address)) || wrong('address', fields.address);
}

function isText(value: unknown): boolean {
  return typeof value === 'string' || wrong('text', value);
}

function text(fields: Fields, name: string): boolean {
  return typeof fields[name] === 'string' || wrong(name, fields[name]);
}

function filled(fields: Fields, name: string): boolean {
  return (typeof fields[name] === 'string' && fields[name] !== '') || wrong(name, fields[name]);
}

function count(fields: Fields, name: string): boolean {
  const value = fields[name];
  return (Number.isSafeInteger(value) && (value as number) >= 0) || wrong(name, value);
}

function uint32(fields: Fields, name: string): boolean {
  return count(fields, name) && ((fields[name] as number) < 2 ** 32 || wrong(name, fields[name]));
}

function ratio(fields: Fields, name: string): boolean {
  const value = fields[name];
  return (typeof value === 'number' && value >= 0 && value <= 1) || wrong(name, value);
}

function number(fields: Fields, name: string): boolean {
  return Number.isFinite(fields[name]) || wrong(name, fields[name]);
}

function flag(fields: Fields, name: string): boolean {
  return typeof fields[name] === 'boolean' || wrong(name, fields[name]);
}

function numbers(fields: Fields, name: string, members: readonly string[]): boolean {
  const group = fields[name];
  if (!isFields(group, name)) return false;
  for (const member of members) {
    if (!Number.isFinite(group[member])) return wrong(`${name}.${member}`, group[member]);
  }
  return true;
}

function listOf(fields: Fields, name: string, accepts: (value: unknown) => boolean): boolean {
  const list = fields[name];
  if (!Array.isArray(list)) return wrong(name, list);
  for (const item of list) {
    if (!accepts(item)) return wrong(`${name}[]: ${fault.text}`);
  }
  return true;
}

/** Always false; remembers what was wrong. The value is shown by type only: garbage may be long or secret. */
function wrong(what: string, ...value: readonly unknown[]): false {
  const shown = value.length === 0 ? '' : `: ${value[0] === null ? 'null' : Array.isArray(value[0]) ? 'a list' : typeof value[0]}`;
  fault.text = `${what}${shown}`;
  return false;
}
