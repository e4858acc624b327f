/**
 * A route gives a public model name to one or several real models: an A/B test, a canary, or a name that
 * outlives the model behind it. Kept as JSON in the mesh's store, so that an operator can read it with
 * `nats kv get dmesh_routes routes`.
 */
import type { Violation } from '#core';

export interface RouteTarget {
  readonly model: string;
  /** '' takes any. */
  readonly revision: string;
  /** Its part of the sum of all weights; 0 gets nothing. */
  readonly weight: number;
}

export interface Route {
  readonly name: string;
  readonly targets: readonly RouteTarget[];
}

export type Routes = ReadonlyMap<string, Route>;

const NAME = /^[A-Za-z0-9._:-]{1,128}$/;
const NAME_RULE = '1 to 128 of A-Z a-z 0-9 . _ : -';
const MAX_ROUTE_COUNT = 200;
const MAX_TARGET_COUNT = 16;
const MAX_WEIGHT = 1_000_000;
const MAX_REVISION_LENGTH = 128;

/** "z-image-tiny" or "z-image-tiny@3". */
export function targetName({ model, revision }: Pick<RouteTarget, 'model' | 'revision'>): string {
  return revision === '' ? model : `${model}@${revision}`;
}

/** For logs: "z-image -> z-image-tiny@3:90, z-image-tiny@4:10". */
export function routeText({ name, targets }: Route): string {
  return `${name} -> ${targets.map((target) => `${targetName(target)}:${target.weight}`).join(', ')}`;
}

/** Everything that is wrong in itself, whatever nodes serve. */
export function routeFaults(routes: readonly Route[]): Violation[] {
  const faults: Violation[] = [];
  const fault = (field: string, description: string) => void faults.push({ field, description });
  if (routes.length > MAX_ROUTE_COUNT) fault('routes', `expected at most ${MAX_ROUTE_COUNT}, got ${routes.length}`);
  const names = new Set<string>();
  for (const [i, { name, targets }] of routes.entries()) {
    const at = `routes[${i}]`;
    if (!NAME.test(name)) fault(`${at}.name`, `expected ${NAME_RULE}, got ${shown(name)}`);
    if (names.has(name)) fault(`${at}.name`, `expected each route once, got ${shown(name)} twice`);
    names.add(name);
    if (targets.length === 0 || targets.length > MAX_TARGET_COUNT) {
      fault(`${at}.targets`, `expected 1 to ${MAX_TARGET_COUNT}, got ${targets.length}`);
    } else if (targets.every(({ weight }) => weight === 0)) fault(`${at}.targets`, 'expected at least one weight above 0');
    faults.push(...targetFaults(at, targets));
  }
  return faults;
}

function targetFaults(at: string, targets: readonly RouteTarget[]): Violation[] {
  const faults: Violation[] = [];
  const seen = new Set<string>();
  for (const [i, target] of targets.entries()) {
    const field = `${at}.targets[${i}]`;
    const { model, revision, weight } = target;
    if (!NAME.test(model)) faults.push({ field: `${field}.model`, description: `expected ${NAME_RULE}, got ${shown(model)}` });
    if (revision.length > MAX_REVISION_LENGTH) {
      faults.push({
        field: `${field}.revision`,
        description: `expected at most ${MAX_REVISION_LENGTH} characters, got ${revision.length}`,
      });
    }
    if (!Number.isInteger(weight) || weight < 0 || weight > MAX_WEIGHT) {
      faults.push({ field: `${field}.weight`, description: `expected a whole number from 0 to ${MAX_WEIGHT}, got ${weight}` });
    }
    const name = targetName(target);
    if (seen.has(name)) faults.push({ field, description: `expected each target once, got ${shown(name)} twice` });
    seen.add(name);
  }
  return faults;
}

export function writeRoutes(routes: readonly Route[]): Uint8Array {
  return Buffer.from(JSON.stringify({ routes }));
}

/** What the store says. Written by people as well as by routers: the fault names the first thing that is wrong. */
export function readRoutes(
  data: Uint8Array,
): { readonly ok: true; readonly routes: readonly Route[] } | { readonly ok: false; readonly fault: string } {
  let json: unknown;
  try {
    json = JSON.parse(Buffer.from(data).toString());
  } catch (error) {
    return { ok: false, fault: `expected JSON, ${error instanceof Error ? error.message : 'got something else'}` };
  }
  const routes = listOf(field(json, 'routes'), (route) => ({
    name: text(field(route, 'name')),
    targets:
      listOf(field(route, 'targets'), (target) => ({
        model: text(field(target, 'model')),
        revision: text(field(target, 'revision') ?? ''),
        weight: Number(field(target, 'weight')),
      })) ?? [],
  }));
  if (!routes) return { ok: false, fault: 'expected {"routes": [...]}' };
  const [first] = routeFaults(routes);
  return first ? { ok: false, fault: `${first.field}: ${first.description}` } : { ok: true, routes };
}

function field(json: unknown, name: string): unknown {
  return typeof json === 'object' && json !== null && Object.hasOwn(json, name) ? Reflect.get(json, name) : undefined;
}

function listOf<T>(json: unknown, read: (entry: unknown) => T): T[] | undefined {
  return Array.isArray(json) ? json.map(read) : undefined;
}

/** What is no text becomes one that no rule allows. */
function text(json: unknown): string {
  return typeof json === 'string' ? json : `\u0000${String(json)}`;
}

function shown(text: string): string {
  return JSON.stringify(text.slice(0, 128));
}
