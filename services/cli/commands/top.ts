/** dmesh top: the mesh as it works, on a whole screen, or as plain snapshots for files and pipes. */
import { Code, connectMesh, type MeshClient, type MeshSnapshot, StatusError } from '#client';
import { admin } from '#contracts';
import { systemClock } from '#runtime';
import { Arguments, MESH_OPTIONS, meshUsage } from '../arguments.js';
import { type Command, type Context, ExitCode } from '../command.js';
import { withScreen } from '../screen.js';
import type { ScreenSize } from '../terminal.js';
import { fitted, frame } from '../top-view.js';

const usage = `dmesh top [options]

  Nodes with state, slots and running step, the queue by class and tenant, and rates, until Ctrl-C.
  Without a terminal: a plain snapshot whenever something changes.

      --once         one plain snapshot
      --json         every field, as JSON, one object a line
${meshUsage({ indent: 6, at: 21 })}
`;

export const top: Command = { name: 'top', summary: 'watch the mesh at work', usage, run };

const REFRESH_MS = 500;
const RETRY_MS = 1000;

async function run(args: readonly string[], context: Context): Promise<ExitCode> {
  const { env, signal, terminal } = context;
  const read = new Arguments(args, { once: { type: 'boolean' }, json: { type: 'boolean' }, ...MESH_OPTIONS });
  read.expectPositionals([]);
  const at = read.mesh(env);
  const { address } = at;
  read.check();
  const mesh = connectMesh(at);
  const plain = (snapshot: MeshSnapshot) =>
    read.flag('json')
      ? `${JSON.stringify(admin.MeshSnapshot.toJSON(snapshot))}\n`
      : `${frame(snapshot, { address, paint: terminal.paint }).join('\n')}\n`;
  try {
    if (read.flag('once')) {
      for await (const snapshot of mesh.watchMesh({ signal })) {
        terminal.out(plain(snapshot));
        break;
      }
    } else if (read.flag('json') || !terminal.screen) {
      for await (const snapshot of mesh.watchMesh({ signal })) terminal.out(`${plain(snapshot)}${read.flag('json') ? '' : '\n'}`);
    } else await live(mesh, context, terminal.screen);
    return ExitCode.OK;
  } catch (error) {
    if (signal.aborted && !read.flag('once')) return ExitCode.OK; // Ctrl-C is how it ends
    throw error;
  } finally {
    mesh.close();
  }
}

/** Until Ctrl-C. A router that is away is waited for, once it has been seen at all. */
async function live(mesh: MeshClient, { signal, terminal }: Context, size: () => ScreenSize): Promise<void> {
  const first = await firstOf(mesh.watchMesh({ signal }));
  await withScreen({ out: terminal.out, size }, async (screen) => {
    const shown = { snapshot: first, notice: undefined as string | undefined };
    const view = () => ({ address: mesh.address, paint: terminal.paint, notice: shown.notice });
    const draw = () => screen.draw(fitted(shown.snapshot, view(), screen.size()));
    const refresh = () => {
      draw();
      return systemClock.schedule(REFRESH_MS, () => {
        cancel = refresh();
      });
    };
    let cancel = refresh();
    try {
      for (;;) {
        shown.notice = await follow(mesh, signal, (snapshot) => {
          shown.snapshot = snapshot;
          shown.notice = undefined;
        });
        await systemClock.sleep(RETRY_MS, signal);
      }
    } finally {
      cancel();
    }
  });
}

/** Resolves with why the router tells no more; rejects when asking again is no use. */
async function follow(mesh: MeshClient, signal: AbortSignal, show: (snapshot: MeshSnapshot) => void): Promise<string> {
  try {
    for await (const snapshot of mesh.watchMesh({ signal })) show(snapshot);
    return 'the router ended the watch; asking again';
  } catch (error) {
    if (signal.aborted || !(error instanceof StatusError) || error.code !== Code.UNAVAILABLE) throw error;
    return `the router is away (${error.reason}); asking again`;
  }
}

async function firstOf<T>(messages: AsyncIterable<T>): Promise<T> {
  for await (const message of messages) return message;
  throw new StatusError({ code: Code.UNAVAILABLE, reason: 'CONNECTION_LOST', message: 'the router ended the watch at once' });
}
