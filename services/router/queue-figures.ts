/** Who waits, by class and by tenant? One pass over what waits; the answer stays small however many tenants there are. */
import { type admin, generation } from '#contracts';
import { PRIORITIES, type Priority, type Waiting } from '#scheduling';

const NAMED_TENANT_COUNT = 20;

const WIRE_PRIORITY: Readonly<Record<Priority, generation.Priority>> = {
  high: generation.Priority.HIGH,
  normal: generation.Priority.NORMAL,
  low: generation.Priority.LOW,
};

interface Load {
  queuedCount: number;
  queuedGpuSeconds: number;
}

export type QueueFigures = Pick<admin.MeshSnapshot, 'classes' | 'tenants' | 'otherTenants'>;

export function queueFigures(waiting: Iterable<Pick<Waiting, 'priority' | 'tenant' | 'costMs'>>): QueueFigures {
  const classes: Record<Priority, Load> = { high: none(), normal: none(), low: none() };
  const tenants = new Map<string, Load>();
  for (const { priority, tenant, costMs } of waiting) {
    const load = tenants.get(tenant) ?? none();
    tenants.set(tenant, load);
    for (const each of [classes[priority], load]) {
      each.queuedCount++;
      each.queuedGpuSeconds += costMs / 1000;
    }
  }
  const sorted = [...tenants]
    .map(([tenant, load]) => ({ tenant, ...load }))
    .sort((a, b) => b.queuedGpuSeconds - a.queuedGpuSeconds || (a.tenant < b.tenant ? -1 : 1));
  const rest = sorted.slice(NAMED_TENANT_COUNT);
  return {
    classes: PRIORITIES.map((priority) => ({ priority: WIRE_PRIORITY[priority], ...classes[priority] })),
    tenants: sorted.slice(0, NAMED_TENANT_COUNT),
    otherTenants: rest.length === 0 ? undefined : { tenantCount: rest.length, ...sum(rest) },
  };
}

function none(): Load {
  return { queuedCount: 0, queuedGpuSeconds: 0 };
}

function sum(loads: readonly Load[]): Load {
  const total = none();
  for (const load of loads) {
    total.queuedCount += load.queuedCount;
    total.queuedGpuSeconds += load.queuedGpuSeconds;
  }
  return total;
}
