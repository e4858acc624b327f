/** What may be asked for with a token? Without one, in an open mesh, all of it. */
import { PRIORITIES, type Priority } from '#scheduling';
import type { Token } from './token.js';
import { forbidden } from './turned-away.js';

/** The class of a request that names none: the usual one, or less where the token allows no more. */
export function defaultPriority(token: Token | undefined, usual: Priority): Priority {
  return token && isAbove(usual, token.maxPriority) ? token.maxPriority : usual;
}

/** Throws FORBIDDEN. `model` is the name the caller uses. */
export function permit(token: Token | undefined, { model, priority }: { model: string; priority: Priority }): void {
  if (!token) return;
  if (isAbove(priority, token.maxPriority)) {
    throw forbidden(`expected a priority of at most ${token.maxPriority} with this token, got ${priority}`);
  }
  if (token.models && !token.models.includes(model)) {
    throw forbidden(`expected one of the models ${token.models.join(', ') || '(none)'} with this token, got ${JSON.stringify(model)}`);
  }
}

function isAbove(priority: Priority, limit: Priority): boolean {
  return PRIORITIES.indexOf(priority) < PRIORITIES.indexOf(limit);
}
