/** dmesh models: what can be asked for, by the options that ask for it, with defaults and limits. */
import { connectMesh, type Model } from '#client';
import { generation } from '#contracts';
import { printable } from '#core';
import { Arguments, MESH_OPTIONS, meshUsage } from '../arguments.js';
import { type Command, type Context, ExitCode } from '../command.js';
import { duration } from '../node-words.js';
import type { Paint } from '../terminal.js';

const usage = `dmesh models [options]

  --json         every field, as JSON
${meshUsage({ indent: 2, at: 17 })}
`;

export const models: Command = { name: 'models', summary: 'list what the mesh can draw with, and the limits', usage, run };

async function run(args: readonly string[], { env, terminal, signal }: Context): Promise<ExitCode> {
  const read = new Arguments(args, { json: { type: 'boolean' }, ...MESH_OPTIONS });
  read.expectPositionals([]);
  const at = read.mesh(env);
  read.check();
  const mesh = connectMesh(at);
  try {
    const listed = await mesh.listModels({ signal });
    if (read.flag('json')) terminal.out(`${JSON.stringify(listed.map((model) => generation.Model.toJSON(model)))}\n`);
    else if (listed.length === 0) terminal.out('No node serves a model right now; "dmesh nodes" shows how they feel.\n');
    else terminal.out(listed.map((model) => describe(model, terminal.paint)).join('\n'));
    return ExitCode.OK;
  } finally {
    mesh.close();
  }
}

function describe(model: Model, paint: Paint): string {
  const { name, revision, nodes, loadedNodes, loadMs, leadsTo } = model;
  const loading = loadMs > 0 ? `, loaded on ${loadedNodes || 'none'}; a load takes about ${duration(loadMs)}` : '';
  const head = `${paint('bold', printable(name))}  revision ${printable(revision.slice(0, 12))}, served by ${nodes} node${nodes === 1 ? '' : 's'}${loading}\n`;
  const route: Row[] = leadsTo.length === 0 ? [] : [['leads to', leadsTo.join(' ')]];
  return (
    head + [...route, ...limitsOf(model), ...lorasOf(model)].map(([option, text]) => `  ${option.padEnd(12)}${printable(text)}\n`).join('')
  );
}

type Row = readonly [option: string, text: string];

function limitsOf({ defaults, limits, languages, negativePrompt }: Model): Row[] {
  if (!defaults || !limits) return [];
  const guidance =
    limits.minGuidanceScale === limits.maxGuidanceScale
      ? `${figure(limits.minGuidanceScale)} only`
      : `default ${figure(defaults.guidanceScale)}, from ${figure(limits.minGuidanceScale)} to ${figure(limits.maxGuidanceScale)}`;
  return [
    ['prompt', `at most ${limits.maxPromptTokens} tokens; languages: ${languages.join(', ')}`],
    ['--negative', negativePrompt ? 'taken' : 'not taken'],
    [
      '--size',
      `default ${defaults.width}x${defaults.height}, from ${limits.minWidth}x${limits.minHeight} to ` +
        `${limits.maxWidth}x${limits.maxHeight} in multiples of ${limits.sizeMultiple}`,
    ],
    ['--steps', `default ${defaults.steps}, from ${limits.minSteps} to ${limits.maxSteps}`],
    ['--guidance', guidance],
    ['--count', `default 1, at most ${limits.maxImageCount}`],
  ];
}

function lorasOf({ limits, loras }: Model): Row[] {
  if (loras.length === 0) return [['--lora', 'none']];
  const range = limits
    ? `at most ${limits.maxLoras}, each with a strength from ${figure(limits.minLoraStrength)} to ${figure(limits.maxLoraStrength)}; default 1`
    : '';
  return [['--lora', range], ...loras.map(({ name, description }): Row => ['', `${name}${description === '' ? '' : `: ${description}`}`])];
}

/** The wire has 32 bits for them: 0.8, not 0.800000011920929. */
function figure(value: number): string {
  return String(Number(value.toPrecision(6)));
}
