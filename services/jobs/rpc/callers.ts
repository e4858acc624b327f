/**
 * Who calls, and so whose jobs are meant? A job is its tenant's alone, for tokens of administrators too: prompts and
 * pictures are nobody else's, and operators have figures, events and the records themselves.
 */
import { ANONYMOUS_TENANT, type Door } from '#access';
import type { Call } from '#grpc';
import type { Caller } from '../admission.js';

export class Callers {
  readonly #door: Door;

  constructor(door: Door) {
    this.#door = door;
  }

  /** Throws UNAUTHENTICATED. */
  async known(call: Call<unknown>): Promise<Caller> {
    const token = await this.#door.identify(call);
    const tenant = token?.tenant ?? ANONYMOUS_TENANT;
    call.notes.tenant = tenant;
    if (token) call.notes.token_id = token.id;
    return { tenant, token };
  }

  /** One that brings work, and so counts as a request of its tenant; a batch is one. Throws RATE_LIMITED as well. */
  async counted(call: Call<unknown>): Promise<Caller> {
    const caller = await this.known(call);
    this.#door.countRequest(caller.tenant, call);
    return caller;
  }
}
