/** dmesh demo: a mesh for the length of one picture. */
import { connectMesh } from '#client';
import type { Line } from '#local-mesh';
import { systemClock } from '#runtime';
import { Arguments } from '../arguments.js';
import { type Command, type Context, ExitCode } from '../command.js';
import { FIRST_PICTURE } from '../first-picture.js';
import { logTo, withMesh } from '../mesh-session.js';
import { readOutput } from '../output-file.js';
import { writingTo } from '../path-fault.js';
import { describePictures, savePictures } from '../pictures.js';
import { ProgressBar } from '../progress-bar.js';

const usage = `dmesh demo [options]

  Starts a mesh on free ports, draws one picture, says where it is, stops everything.

      --prompt TEXT  default "${FIRST_PICTURE.prompt}"
      --seed N       default ${FIRST_PICTURE.seed}
  -o, --out FILE     .png, .jpg or .webp; missing folders are made; default images/ and a name made of
                     the prompt
      --nodes N      nodes on the CPU; default one node for each GPU, or 3 without any
      --verbose      shows the log of every process
`;

export const demo: Command = { name: 'demo', summary: 'start a mesh, draw one picture, stop', usage, run };

async function run(args: readonly string[], context: Context): Promise<ExitCode> {
  const read = new Arguments(args, {
    prompt: { type: 'string' },
    seed: { type: 'string' },
    out: { type: 'string', short: 'o' },
    nodes: { type: 'string' },
    verbose: { type: 'boolean' },
  });
  read.expectPositionals([]);
  const nodeCount = read.integer('nodes', { min: 1, max: 256 });
  const seed = read.seed() ?? FIRST_PICTURE.seed;
  const prompt = read.text('prompt') ?? FIRST_PICTURE.prompt;
  const { file, format } = await readOutput(read, prompt, 'images');
  const tls = read.tls(context.env);
  read.check();

  const { env, terminal, signal } = context;
  const startedAt = systemClock.now();
  const show = logTo(context);
  // Fetching a nats-server can take a while; the rest is of interest to whoever asks.
  const onLine = (line: Line) => (read.flag('verbose') || line.process === 'setup') && show(line);
  return withMesh(context, { nodeCount, cpuNodeCount: 3, natsUrl: context.env.NATS_URL, tls, onLine }, async (mesh) => {
    terminal.err(terminal.paint('dim', `ready after ${((systemClock.now() - startedAt) / 1000).toFixed(1)} s, drawing "${prompt}"\n`));
    const client = connectMesh({ address: mesh.address, token: env.DMESH_TOKEN, tls });
    const bar = new ProgressBar(terminal);
    try {
      const request = { prompt, seed, format };
      const result = await client.generate(request, { signal, onProgress: (progress) => bar.show(progress) });
      bar.clear();
      const saved = await writingTo({ option: '--out', expects: 'a file that can be written', path: file }, () =>
        savePictures(result, file),
      );
      terminal.out(describePictures(result, saved, terminal.paint));
      return ExitCode.OK;
    } finally {
      bar.clear();
      client.close();
    }
  });
}
