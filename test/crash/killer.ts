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

/** Kills for so long; resolves when all is there again. */
export async function killForAWhile(options: KillerOptions, ms: number): Promise<void> {
  const { everyMs, onKill, random } = options;
  const mending: Promise<void>[] = [];
  const endsAt = systemClock.now() + ms;
  while (systemClock.now() + everyMs <= endsAt) {
    await systemClock.sleep(everyMs);
    // The same draws for the same seed, whoever lives: where the one drawn is gone, it is the next one's turn.
    const awayMs = random() * MAX_AWAY_MS;
    const mend = (mended: Promise<void>) => {
      mended.catch(() => {}); // told in the end
      mending.push(mended);
    };
    const victims = victimsOf(awayMs, mend, options);
    const first = Math.floor(random() * victims.length);
    const inTurn = victims.map((_, index) => victims[(first + index) % victims.length]);
    const killed = inTurn.find((victim) => victim?.kill());
    if (killed) onKill(killed.name);
  }
  await Promise.all(mending);
}

/** In the same order always. */
function victimsOf(awayMs: number, mend: (mended: Promise<void>) => void, options: KillerOptions): Victim[] {
  const { mesh } = options;
  const children = [mesh.routers, mesh.jobs, mesh.nodes].flatMap(newest);
  const ofChildren = children.map((child) => ({
    name: child.id,
    kill: () => {
      const killed = child.kill('SIGKILL');
      if (killed) mend(startAgain(child, awayMs, options));
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
      mend(startNatsAgain(awayMs, options).finally(() => natsAway.delete(mesh)));
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
async function startAgain(gone: Child, awayMs: number, { mesh, onComplaint }: KillerOptions): Promise<void> {
  for (let last = gone; ; ) {
    await last.exited;
    await systemClock.sleep(awayMs);
    const ready = mesh.restart(last);
    last = newestOf(mesh, gone.id) ?? last;
    try {
      await ready;
      return;
    } catch (error) {
      if (last.running) throw error; // it is not ready when it should be
      if ((await last.exited).signal === 'SIGKILL') return;
      onComplaint(String(error)); // such as: somebody has its port
    }
  }
}

function newestOf(mesh: LocalMesh, id: string): Child | undefined {
  return [mesh.routers, mesh.jobs, mesh.nodes].flatMap(newest).find((child) => child.id === id);
}

async function startNatsAgain(awayMs: number, { mesh, onComplaint }: KillerOptions): Promise<void> {
  await mesh.nats?.exited;
  for (;;) {
    await systemClock.sleep(awayMs);
    try {
      await mesh.restartNats();
      return;
    } catch (error) {
      onComplaint(String(error));
    }
  }
}
