/** Routes as people type them: NAME=MODEL[@REVISION][:WEIGHT],... What they mean is for the mesh to judge. */
import type { Route } from '#client';

/** name, model, revision, weight: a weight is what stands behind the last colon, if that is a number. */
const TARGET = /^([^@]+?)(?:@(.+?))?(?::(\d+))?$/;

/** Numbers, but no weights: a model is hardly called so. One that is can be named with its weight behind it. */
const NO_WEIGHT = /:([-+.\d][-+.\de]*|)$/i;

/** One route for each argument; no targets: it goes away. */
export function readRouteArguments(args: readonly string[], fault: (text: string) => void): Map<string, Route> {
  const routes = new Map<string, Route>();
  if (args.length === 0) fault('expected routes such as z-image=z-image-tiny:90,z-image-tiny@4:10, got nothing');
  for (const arg of args) {
    const at = arg.indexOf('=');
    const name = arg.slice(0, at);
    if (at < 1) fault(`expected NAME=TARGET, got ${JSON.stringify(arg)}`);
    else if (routes.has(name)) fault(`expected each route once, got ${JSON.stringify(name)} twice`);
    else routes.set(name, { name, targets: arg.length === at + 1 ? [] : targetsOf(arg.slice(at + 1), fault) });
  }
  return routes;
}

function targetsOf(text: string, fault: (text: string) => void): Route['targets'] {
  return text.split(',').flatMap((target) => {
    const [, model, revision = '', weight] = TARGET.exec(target) ?? [];
    const number = weight ?? NO_WEIGHT.exec(target)?.[1] ?? '1';
    if (model === undefined) fault(`expected MODEL, MODEL@REVISION or either with :WEIGHT, got ${JSON.stringify(target)}`);
    else if (/^\d+$/.test(number) && Number(number) <= 0xffffffff) return [{ model, revision, weight: Number(number) }];
    else fault(`expected a weight (a whole number) behind the last colon, got ${JSON.stringify(number)} in ${JSON.stringify(target)}`);
    return [];
  });
}
