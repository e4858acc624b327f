/**
 * docs/operations.md promises every setting, metric and reason; the other pages name files and show
 * programs. Where a page lags behind, the missing lines are in the failure, ready to be pasted.
 */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import ts from 'typescript';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Reason } from '#core';
import { LocalMesh } from '#local-mesh';
import { EnvReader, type Setting } from '#runtime';
import { parseConfig as engineConfig } from '../../services/engine-onnx/config.js';
import { parseConfig as nodeConfig } from '../../services/inference-node/config.js';
import { parseConfig as jobsConfig } from '../../services/jobs/config.js';
import { parseConfig as routerConfig } from '../../services/router/config.js';
import { useShared } from '../support/shared.js';

const root = path.resolve(import.meta.dirname, '../..');
const read = (file: string) => readFile(path.join(root, file), 'utf8');

let mesh: LocalMesh;
useShared(
  async () => {
    mesh = await LocalMesh.start({ nodes: 1, jobsCount: 1 });
  },
  () => mesh?.stop(),
);

function settingsOf(parse: (read: EnvReader) => unknown): readonly Setting[] {
  const reader = new EnvReader({}, '');
  parse(reader);
  return reader.settings;
}
/** As the page's tables have it: "duration", "integer 0–1000". */
function short(expects: string): string {
  return expects
    .replace(/^an? /, '')
    .replace(/ such as .*/, '')
    .replace(/ from (\S+) to (\S+)/, ' $1–$2');
}
const defaults = { hostName: 'HOST', tempDir: '/tmp', modelDir: 'libs/embedded-model/z-image-tiny', terminal: false };

test.each([
  ['router', settingsOf((reader) => routerConfig(reader, defaults))],
  ['inference-node', settingsOf((reader) => nodeConfig(reader, defaults))],
  ['jobs', settingsOf((reader) => jobsConfig(reader, defaults))],
  ['engine-onnx', settingsOf((reader) => engineConfig(reader))],
])('every setting of %s is described with its default', async (_, settings) => {
  const page = await read('docs/operations.md');
  const rows = settings.map((s) => `| \`${s.name}\` | ${s.defaultText} | ${short(s.expects)} | ${s.help} |`);
  expect(rows.filter((row) => !page.includes(row)).join('\n')).toBe('');
});

test('every setting of engine-diffusers is described', async () => {
  const page = await read('docs/operations.md');
  const names = (await read('services/engine-diffusers/engine_diffusers/config.py')).matchAll(/(?:choice|integer|text)\("(DMESH_\w+)", /g);
  expect([...names].map(([, name]) => name).filter((name) => !page.includes(`| \`${name}\` |`))).toEqual([]);
});

test('every metric is described', async () => {
  const page = await read('docs/operations.md');
  const missing: string[] = [];
  for (const child of [...mesh.routers, ...mesh.nodes, ...mesh.jobs]) {
    const exposition = await (await fetch(`http://${child.http}/metrics`)).text();
    for (const [, name = '', help = ''] of exposition.matchAll(/^# HELP (dmesh_\S+) (.+)$/gm)) {
      if (!page.includes(`| \`${name}\` |`)) missing.push(`| \`${name}\` | ${help} |`);
    }
  }
  expect([...new Set(missing)].join('\n')).toBe('');
});

test('every reason has its cure', async () => {
  const page = await read('docs/operations.md');
  expect(Object.values(Reason).filter((reason) => !page.includes(`| \`${reason}\` |`))).toEqual([]);
});

test('every file and link the pages name exists', async () => {
  const pages = ['README.md', ...(await pagesOf('docs')), ...(await pagesOf('docs/decisions'))];
  const missing: string[] = [];
  for (const page of pages) {
    const text = await read(page);
    const links = [...text.matchAll(/\]\((?!https?:|#)([^)#]+)/g)].map(([, target = '']) => path.join(path.dirname(page), target));
    const files = [...text.matchAll(/`((?:libs|services|test|deploy|proto|docs)\/[\w./*-]*)`/g)].map(([, file = '']) =>
      file.replace(/\*.*$/, ''),
    );
    for (const target of [...links, ...files]) if (!existsSync(path.join(root, target))) missing.push(`${page}: ${target}`);
  }
  expect(missing).toEqual([]);
});

test('the README leads to every page', async () => {
  const readme = await read('README.md');
  expect((await pagesOf('docs')).filter((page) => !readme.includes(`](${page})`))).toEqual([]);
});

async function pagesOf(folder: string): Promise<string[]> {
  return (await readdir(path.join(root, folder))).filter((name) => name.endsWith('.md')).map((name) => `${folder}/${name}`);
}

describe('the programs shown', () => {
  // '#client' resolves only inside the repository.
  let dir = '';
  beforeAll(async () => {
    await mkdir(path.join(root, '.cache'), { recursive: true });
    dir = await mkdtemp(path.join(root, '.cache/shown-'));
  });
  afterAll(() => rm(dir, { recursive: true, force: true }));

  /** Those that are whole: what begins with an import. */
  async function programsOf(page: string): Promise<string[]> {
    const blocks = [...(await read(page)).matchAll(/```ts\n(.*?)```/gs)].map(([, text = '']) => text);
    return blocks.filter((text) => text.startsWith('import '));
  }

  test('have the right types', async () => {
    const files: string[] = [];
    for (const page of ['README.md', 'libs/client/README.md']) {
      const programs = await programsOf(page);
      expect(programs, page).not.toHaveLength(0);
      for (const program of programs) {
        const file = path.join(dir, `shown-${files.length}.ts`);
        await writeFile(file, program);
        files.push(file);
      }
    }
    expect(typeErrors(files)).toBe('');
  });

  test("the README's draws when saved as it is", async () => {
    const [program = ''] = await programsOf('README.md');
    const file = path.join(dir, 'circle.mjs');
    await writeFile(file, program.replace('127.0.0.1:50051', mesh.address));
    await promisify(execFile)(process.execPath, [file], { cwd: dir });
    expect((await readFile(path.join(dir, 'circle.png'))).subarray(1, 4).toString()).toBe('PNG');
  });
});

function typeErrors(files: readonly string[]): string {
  const host = { ...ts.sys, onUnRecoverableConfigFileDiagnostic: () => {} };
  const config = ts.getParsedCommandLineOfConfigFile(path.join(root, 'tsconfig.json'), { noEmit: true, incremental: false }, host);
  const { tsBuildInfoFile: _, ...options } = config?.options ?? {};
  const program = ts.createProgram(files, options);
  const errors = files.flatMap((file) => {
    const source = program.getSourceFile(file);
    return [...program.getSyntacticDiagnostics(source), ...program.getSemanticDiagnostics(source)];
  });
  return ts.formatDiagnostics(errors, { getCanonicalFileName: (name) => name, getCurrentDirectory: () => root, getNewLine: () => '\n' });
}
