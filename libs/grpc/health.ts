/**
 * grpc.health.v1 on every server. Two names: "" says that the process lives, "ready" whether it
 * takes work now, so that liveness and readiness probes differ.
 */
import { health } from '#contracts';
import { type Clock, Code, Reason, StatusError } from '#core';
import type { Server } from './server.js';

export interface HealthOptions {
  readonly clock: Clock;
  /** Asked at every check, and again and again for those who watch. */
  readonly isReady: () => boolean;
}

const ServingStatus = health.HealthCheckResponse_ServingStatus;
/** A watcher is told of a change within this. */
const LOOK_EVERY_MS = 500;

export function addHealth(server: Server, { clock, isReady }: HealthOptions): void {
  const statusOf = (service: string) => {
    if (service === '') return ServingStatus.SERVING;
    if (service !== 'ready') return undefined;
    return isReady() ? ServingStatus.SERVING : ServingStatus.NOT_SERVING;
  };
  server.add(
    health.HealthService,
    {
      check: async ({ request: { service } }) => {
        const status = statusOf(service);
        if (status === undefined) throw unknownService(service);
        return { status };
      },
      watch: async (call, out) => {
        let sent: health.HealthCheckResponse_ServingStatus | undefined;
        for (;;) {
          const status = statusOf(call.request.service) ?? ServingStatus.SERVICE_UNKNOWN;
          if (status !== sent) await out.write({ status });
          sent = status;
          await clock.sleep(LOOK_EVERY_MS, call.signal);
        }
      },
    },
    { endless: ['watch'], always: true },
  );
}

function unknownService(service: string): StatusError {
  return new StatusError({
    code: Code.NOT_FOUND,
    reason: Reason.BAD_REQUEST,
    message: `expected service "" or "ready", got ${JSON.stringify(service)}`,
  });
}
