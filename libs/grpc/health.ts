/**
 * grpc.health.v1 on every server. Two names: "" says that the process lives, "ready" whether it
 * takes work now, so that liveness and readiness probes differ.
 */
import { health } from '#contracts';
import { Code, Reason, StatusError } from '#core';
import type { Server } from './server.js';

const ServingStatus = health.HealthCheckResponse_ServingStatus;

export class Health {
  readonly #statuses = new Map<string, health.HealthCheckResponse_ServingStatus>([['', ServingStatus.SERVING]]);
  readonly #watchers = new Set<() => void>();

  constructor(server: Server) {
    this.setReady(false);
    server.add(
      health.HealthService,
      {
        check: async (call) => {
          const status = this.#statuses.get(call.request.service);
          if (status === undefined) {
            throw new StatusError({
              code: Code.NOT_FOUND,
              reason: Reason.BAD_REQUEST,
              message: `expected service "" or "ready", got ${JSON.stringify(call.request.service)}`,
            });
          }
          return { status };
        },
        watch: async (call, out) => {
          let sent: health.HealthCheckResponse_ServingStatus | undefined;
          while (!call.signal.aborted) {
            const status = this.#statuses.get(call.request.service) ?? ServingStatus.SERVICE_UNKNOWN;
            if (status !== sent) await out.write({ status });
            sent = status;
            await this.#change(call.signal);
          }
        },
      },
      { endless: ['watch'], always: true },
    );
  }

  setReady(ready: boolean): void {
    const status = ready ? ServingStatus.SERVING : ServingStatus.NOT_SERVING;
    if (this.#statuses.get('ready') === status) return;
    this.#statuses.set('ready', status);
    for (const wake of this.#watchers) wake();
  }

  #change(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const wake = () => {
        this.#watchers.delete(wake);
        signal.removeEventListener('abort', wake);
        resolve();
      };
      this.#watchers.add(wake);
      signal.addEventListener('abort', wake, { once: true });
    });
  }
}
