/**
 * An engine that was killed leaves its socket behind. A socket that nobody answers at is removed, if
 * it is old enough not to be one that is about to listen.
 */
import { readdir, rm, stat } from 'node:fs/promises';
import net from 'node:net';
import path from 'node:path';

const SOCKET = /^engine-.*\.sock$/;
const STARTING_MS = 60_000;

/** `nowEpochMs`: about now. Never rejects: what cannot be tidied up does no harm. */
export async function removeDeadSockets(dir: string, nowEpochMs: number): Promise<void> {
  const names = await readdir(dir).catch(() => []);
  const isOld = async (file: string) => nowEpochMs - (await stat(file)).mtimeMs >= STARTING_MS;
  const tidy = async (file: string) => {
    if ((await isOld(file)) && (await refusesConnections(file))) await rm(file, { force: true });
  };
  await Promise.allSettled(names.filter((name) => SOCKET.test(name)).map((name) => tidy(path.join(dir, name))));
}

function refusesConnections(file: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect(file);
    socket.once('connect', () => {
      socket.destroy();
      resolve(false);
    });
    socket.once('error', (error) => resolve('code' in error && error.code === 'ECONNREFUSED'));
  });
}
