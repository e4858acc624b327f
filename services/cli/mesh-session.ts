/**
 * A local mesh for as long as a command runs, with its log on the terminal. `dmesh up` and
 * `dmesh demo` are this with different endings.
 */
import {
  type Child,
  detectGpus,
  type Exit,
  type Line,
  type LocalGpu,
  LocalMesh,
  type LocalMeshOptions,
  type NatsServer,
} from '#local-mesh';
import type { Context } from './command.js';
import { createLogView } from './log-view.js';

export interface SessionOptions
  extends Pick<
    LocalMeshOptions,
    'routerListen' | 'routerCount' | 'jobsCount' | 'keepDir' | 'natsUrl' | 'tls' | 'onLine' | 'engine' | 'env'
  > {
  /** CPU nodes; default one node per GPU, or `cpuNodeCount` where there is none. */
  readonly nodeCount: number | undefined;
  readonly cpuNodeCount: number;
}

/** Runs `use` while the mesh is up, then drains it, whatever happened. Ctrl-C ends `use` by its signal. */
export async function withMesh<T>(context: Context, options: SessionOptions, use: (mesh: LocalMesh) => Promise<T>): Promise<T> {
  const { err, paint } = context.terminal;
  const nodes = await nodesToStart(options);
  const count = typeof nodes === 'number' ? nodes : nodes.length;
  const slots = typeof nodes === 'number' ? 'the CPU' : nodes.map((gpu) => gpu.name).join(', ');
  const jobs = options.jobsCount ? `, ${options.jobsCount} jobs replica(s)` : '';
  err(paint('dim', `starting NATS, ${options.routerCount ?? 1} router(s)${jobs} and ${count} node(s) on ${slots}\n`));

  const mesh = await LocalMesh.start({ ...options, nodes, token: context.env.DMESH_TOKEN, signal: context.signal });
  const kill = () => mesh.kill();
  context.hurry.addEventListener('abort', kill, { once: true });
  try {
    return await use(mesh);
  } finally {
    err(paint('dim', 'draining: what runs is finished, then everything stops\n'));
    await mesh.stop();
    context.hurry.removeEventListener('abort', kill);
  }
}

/** Prints every line worth a person's time. */
export function logTo({ terminal }: Context): (line: Line) => void {
  const view = createLogView(terminal.paint);
  return (line) => {
    const text = view(line);
    if (text !== undefined) terminal.err(text);
  };
}

/**
 * Starts what dies once more, as a supervisor does in production: after a second, then after ever
 * longer waits up to half a minute. NATS comes back on its port.
 */
export function keepAlive(mesh: LocalMesh, { signal, terminal }: Context, sleep: (ms: number, signal: AbortSignal) => Promise<void>): void {
  const tellAndWait = async (id: string, exit: Exit, deathCount: number): Promise<void> => {
    const waitMs = Math.min(30_000, 1000 * 2 ** deathCount);
    terminal.err(
      terminal.paint('yellow', `${id} ended (${exit.signal ?? `exit code ${exit.code}`}); it starts again in ${waitMs / 1000} s\n`),
    );
    await sleep(waitMs, signal);
  };
  const complain = (error: unknown) => terminal.err(terminal.paint('red', `${error instanceof Error ? error.message : String(error)}\n`));
  const watch = async (child: Child, deathCount: number): Promise<void> => {
    const exit = await child.exited;
    if (signal.aborted) return;
    try {
      await tellAndWait(child.id, exit, deathCount);
      watch(await mesh.restart(child), deathCount + 1);
    } catch (error) {
      if (signal.aborted) return;
      const last = [...mesh.routers, ...mesh.nodes, ...mesh.jobs].filter((other) => other.id === child.id).at(-1) ?? child;
      complain(error);
      if (last !== child) watch(last, deathCount + 1);
    }
  };
  const watchNats = async (nats: NatsServer, deathCount: number): Promise<void> => {
    const exit = await nats.exited;
    if (signal.aborted) return;
    try {
      await tellAndWait('nats', exit, deathCount);
      watchNats(await mesh.restartNats(), deathCount + 1);
    } catch (error) {
      if (signal.aborted) return;
      complain(error); // such as: somebody took its port
      watchNats(nats, deathCount + 1);
    }
  };
  for (const child of [...mesh.routers, ...mesh.nodes, ...mesh.jobs]) watch(child, 0);
  if (mesh.nats) watchNats(mesh.nats, 0);
}

async function nodesToStart(options: SessionOptions): Promise<number | readonly LocalGpu[]> {
  if (options.nodeCount !== undefined) return options.nodeCount;
  const gpus = await detectGpus();
  return gpus.length > 0 ? gpus : options.cpuNodeCount;
}
