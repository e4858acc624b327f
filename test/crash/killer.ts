/**
 * Kills a process of a mesh every so often, drawn at random, as `kill -9` does, and starts it again after a while, as
 * a supervisor would. Any of them: router, jobs replica, node, a node's engine, nats-server; also one that is
 * only just starting. At times several are gone at once, all of a kind too.
 */
import { readFileSync } from 'node:fs';
import type { Random } from '#core';
import type { Child, LocalMesh } from '#local-mesh';
import { systemClock } from '#runtime';

export interface KillerOptions {
  readonly mesh: LocalMesh;
  readonly random: Random;
  readonly everyMs: number;
  /** Such as "node-2", "engine of node-2", "nats". */
  readonly onKill: (victim: string) => void;
  readonly onComplaint: (message: string) => void;
}

interface Victim {
  readonly name: string;
  /** False: it is gone already. */
  readonly kill: () => boolean;
}

/** A supervisor takes between nothing and this to notice. */
const MAX_AWAY_MS = 1500;
const START_TRY_MS = 500;

/** Kills for so long; resolves when all is there again. */
export async function killForAWhile(options: KillerOptions, ms: number): Promise<void> {
  const { everyMs, mesh, onKill, random } = options;
  const mending: Promise<void>[] = [];
  const endsAt = systemClock.now() + ms;
  while (systemClock.now() + everyMs <= endsAt) {
    await systemClock.sleep(everyMs);
    const victims = victimsOf(mesh, (mended) => mending.push(mended), options);
    // The same draws for the same seed, whoever lives: where the one drawn is gone, it is the next one's turn.
    const first = Math.floor(random() * victims.length);
    const inTurn = victims.map((_, index) => victims[(first + index) % victims.length]);
    const killed = inTurn.find((victim) => victim?.kill());
    if (killed) onKill(killed.name);
  }
  await Promise.all(mending);
}

/** In the same order always. */
function victimsOf(mesh: LocalMesh, mend: (mended: Promise<void>) => void, options: KillerOptions): Victim[] {
  const children = [mesh.routers, mesh.jobs, mesh.nodes].flatMap(newest);
  const ofChildren = children.map((child) => ({
    name: child.id,
    kill: () => {
      const killed = child.kill('SIGKILL');
      if (killed) mend(startAgain(child, options));
      return killed;
    },
  }));
  const engines = newest(mesh.nodes).map((node) => ({ name: `engine of ${node.id}`, kill: () => killEngine(node) }));
  const nats = {
    name: 'nats',
    kill: () => {
      if (natsAway.has(mesh) || !mesh.nats) return false;
      natsAway.add(mesh);
      void mesh.nats.kill();
      mend(startNatsAgain(options).finally(() => natsAway.delete(mesh)));
      return true;
    },
  };
  return [...ofChildren, ...engines, nats];
}

const natsAway = new WeakSet<LocalMesh>();

/** Of each id the life that began last. */
function newest(children: readonly Child[]): Child[] {
  return [...new Map(children.map((child) => [child.id, child])).values()];
}

/** Of a node, which has one child at a time and starts another by itself. False: one of the two is gone already. */
export function killEngine(node: Child): boolean {
  if (!node.running) return false;
  try {
    const [pid] = readFileSync(`/proc/${node.pid}/task/${node.pid}/children`, 'utf8').split(' ').filter(Boolean).map(Number);
    return pid !== undefined && process.kill(pid, 'SIGKILL');
  } catch {
    return false;
  }
}

/** A life that was killed while it started counts for nothing: whoever killed it starts the next. */
async function startAgain(gone: Child, { mesh, onComplaint, random }: KillerOptions): Promise<void> {
  const awayMs = random() * MAX_AWAY_MS;
  await gone.exited;
  await systemClock.sleep(awayMs);
  try {
    await mesh.restart(gone);
  } catch (error) {
    const last = [mesh.routers, mesh.jobs, mesh.nodes].flatMap(newest).find(({ id }) => id === gone.id);
    const killed = last && (await last.exited).signal === 'SIGKILL';
    if (!killed) throw error;
    onComplaint(`${gone.id} was killed while it started`);
  }
}

async function startNatsAgain({ mesh, onComplaint, random }: KillerOptions): Promise<void> {
  const awayMs = random() * MAX_AWAY_MS;
  await mesh.nats?.exited;
  await systemClock.sleep(awayMs);
  for (;;) {
    try {
      await mesh.restartNats();
      return;
    } catch (error) {
      onComplaint(`nats: ${String(error)}`); // such as: its port is still held
      await systemClock.sleep(START_TRY_MS);
    }
  }
}
