/** dmesh generate: one prompt becomes one or more files. */
import { connectMesh } from '#client';
import { Arguments, MESH_OPTIONS, meshUsage } from '../arguments.js';
import { type Command, type Context, ExitCode } from '../command.js';
import { readOutput } from '../output-file.js';
import { writingTo } from '../path-fault.js';
import { describePictures, picturesAsJson, savePictures } from '../pictures.js';
import { ProgressBar } from '../progress-bar.js';
import { REQUEST_OPTIONS, readRequest } from '../request-arguments.js';

const usage = `dmesh generate "PROMPT" [options]

  -o, --out FILE       where to save it, such as a/b.png; missing folders are made; default from the prompt.
                       Several pictures: b-1.png, b-2.png, …
      --seed N         equal seeds draw equal pictures; default: chance
      --steps N        denoising steps
      --size WxH       pixels, such as 128x128
      --lora NAME=S    style adapter with its strength, such as neon=0.8; repeatable; =S may be left out
      --format F       png, jpeg or webp; default from the ending of FILE, else png
      --count N        pictures to draw
      --model NAME     needed only while the mesh serves several
      --negative TEXT  what to avoid, for models that can
      --guidance X     guidance scale
      --priority P     high, normal or low
${meshUsage({ indent: 6, at: 23 })}
      --timeout T      such as 60s (the default) or 5m
      --json           tells what was saved as one JSON object

What is left out takes the model's default. A progress bar is shown on a terminal.
`;

const OPTIONS = {
  out: { type: 'string', short: 'o' },
  ...REQUEST_OPTIONS,
  ...MESH_OPTIONS,
  timeout: { type: 'string' },
  json: { type: 'boolean' },
} as const;

export const generate: Command = { name: 'generate', summary: 'draw a picture', usage, run };

async function run(args: readonly string[], { env, terminal, signal }: Context): Promise<ExitCode> {
  const read = new Arguments(args, OPTIONS);
  const [prompt = ''] = read.expectPositionals(['a "PROMPT" in quotes']);
  const { file, format } = await readOutput(read, prompt);
  const request = { ...readRequest(read), prompt, format };
  const timeoutMs = read.durationMs('timeout') ?? 60_000;
  const at = read.mesh(env);
  read.check();

  const mesh = connectMesh(at);
  const bar = new ProgressBar(terminal);
  try {
    const result = await mesh.generate(request, { signal, timeoutMs, onProgress: (progress) => bar.show(progress) });
    bar.clear();
    const saved = await writingTo({ option: '--out', expects: 'a file that can be written', path: file }, () => savePictures(result, file));
    terminal.out(
      read.flag('json') ? `${JSON.stringify(picturesAsJson(result, saved))}\n` : describePictures(result, saved, terminal.paint),
    );
    return ExitCode.OK;
  } finally {
    bar.clear();
    mesh.close();
  }
}
