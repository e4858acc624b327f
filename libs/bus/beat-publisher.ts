/** Tells the mesh that this node lives and what it can do; heartbeat.ts says when. */
import type { Clock, Random } from '#core';
import type { Beat, Leave } from './beat.js';
import type { Bus } from './bus.js';
import { Heartbeat } from './heartbeat.js';
import { beatSubject, leaveSubject, ROLL_CALL } from './subjects.js';

export interface BeatPublisherOptions {
  readonly bus: Bus;
  readonly clock: Clock;
  readonly random: Random;
  /** Default 1000; the same for the whole mesh, since observers count missed beats. */
  readonly intervalMs?: number;
  /** The node's state now; nodeId and incarnation never change. Asked at each beat. */
  readonly read: () => Omit<Beat, 'seq'>;
}

export class BeatPublisher extends Heartbeat {
  constructor({ read, ...options }: BeatPublisherOptions) {
    let seq = 0;
    super({
      ...options,
      rollCall: ROLL_CALL,
      beat: () => {
        seq += 1;
        const beat: Beat = { ...read(), seq };
        return { subject: beatSubject(beat.nodeId), payload: JSON.stringify(beat) };
      },
      leave: () => {
        const { nodeId, incarnation } = read();
        const leave: Leave = { nodeId, incarnation };
        return { subject: leaveSubject(nodeId), payload: JSON.stringify(leave) };
      },
    });
  }
}
