/**
 * Puts a process on NATS's own list of services, so that `nats micro ls` and `nats micro info` show
 * the mesh. For operators only: it says who registered, not who lives. Membership says that.
 */
import type { Emit } from '#core';
import type { Bus } from './bus.js';
import type { BusEvent } from './events.js';

export interface ServiceRegistration {
  readonly name: 'dmesh-router' | 'dmesh-node' | 'dmesh-jobs';
  /** x.y.z */
  readonly version: string;
  readonly description: string;
  /** Such as node_id, incarnation, grpc_addr, models. Asked at each connection. */
  readonly metadata: () => Readonly<Record<string, string>>;
}

/** Registers now and after every reconnect. Returns what ends it. */
export function registerService(bus: Bus, registration: ServiceRegistration, emit: Emit<BusEvent>): () => void {
  return bus.attach((connection) => {
    const { name, version, description, metadata } = registration;
    const added = connection.services.add({ name, version, description, metadata: { ...metadata() } });
    added.catch((error: unknown) => emit({ type: 'busError', cause: `registering ${name}: ${String(error)}` }));
    return () => void added.then((service) => service.stop()).catch(() => {}); // a failed add was told above
  });
}
