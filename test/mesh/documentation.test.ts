/**
 * docs/operations.md promises every setting, metric and reason; the other pages name files. Where a
 * page lags behind, the missing lines are in the failure, ready to be pasted.
 */
import { existsSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Reason } from '#core';
import { LocalMesh } from '#local-mesh';
import { EnvReader, type Setting } from '#runtime';
import { parseConfig as engineConfig } from '../../services/engine-onnx/config.js';
import { parseConfig as nodeConfig } from '../../services/inference-node/config.js';
import { parseConfig as routerConfig } from '../../services/router/config.js';

const root = path.resolve(import.meta.dirname, '../..');
const read = (file: string) => readFile(path.join(root, file), 'utf8');

let mesh: LocalMesh;
beforeAll(async () => {
  mesh = await LocalMesh.start({ nodes: 1 });
});
afterAll(() => mesh?.stop());

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
  ['engine-onnx', settingsOf((reader) => engineConfig(reader))],
])('every setting of %s is described with its default', async (_, settings) => {
  const page = await read('docs/operations.md');
  const rows = settings.map((s) => `| \`${s.name}\` | ${s.defaultText} | ${short(s.expects)} | ${s.help} |`);
  expect(rows.filter((row) => !page.includes(row)).join('\n')).toBe('');
});

test('every metric is described', async () => {
  const page = await read('docs/operations.md');
  const missing: string[] = [];
  for (const child of [...mesh.routers, ...mesh.nodes]) {
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
  const decisions = (await readdir(path.join(root, 'docs/decisions'))).map((file) => `docs/decisions/${file}`);
  const pages = ['README.md', 'docs/architecture.md', 'docs/engines.md', 'docs/operations.md', ...decisions.filter((file) => file.endsWith('.md'))];
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
