/**
 * The dependency rules, once, as a program: what each lib may import, that every vendor has one door,
 * that services do not know each other, and that time, chance, process and console come in from
 * outside. A new lib, vendor or exemption is a line here, with its reason.
 */
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { expect, test } from 'vitest';
import { sourceFacts } from '../support/source-facts.js';

interface Allowed {
  /** Libs this one may use at run time. Those it imports types from only may be any above it or beside it. */
  readonly libs: readonly string[];
  readonly vendors?: readonly string[];
  /** Imports types of these, such as the events it observes. */
  readonly types?: readonly string[];
  /** May use node:*. */
  readonly node?: boolean;
}

/** From the inside out: a lib uses only libs above it. */
const LIBS: Readonly<Record<string, Allowed>> = {
  core: { libs: [] },
  noise: { libs: ['core'] },
  scheduling: { libs: ['core'] },
  contracts: { libs: [], vendors: ['@grpc/grpc-js', '@bufbuild/protobuf'] },
  'model-package': { libs: ['core', 'contracts'], node: true },
  runtime: { libs: ['core'], node: true },
  tls: { libs: ['core', 'runtime'], node: true },
  access: { libs: ['core', 'scheduling', 'runtime'], node: true },
  grpc: { libs: ['core', 'contracts', 'tls'], vendors: ['@grpc/grpc-js', '@bufbuild/protobuf'], node: true },
  bus: { libs: ['core', 'model-package', 'tls'], types: ['runtime'], vendors: ['nats'], node: true },
  breaker: { libs: ['core'], vendors: ['opossum'], node: true },
  telemetry: {
    libs: ['core'],
    types: ['grpc', 'runtime', 'breaker', 'bus', 'tls'],
    vendors: ['pino', 'pino-pretty', 'prom-client'],
    node: true,
  },
  'embedded-model': { libs: ['core'], node: true },
  client: { libs: ['core', 'contracts', 'grpc', 'runtime', 'tls'], node: true },
  'local-mesh': { libs: ['core', 'runtime', 'embedded-model', 'client'], types: ['tls'], node: true },
};

/** Vendors that only one service needs. */
const SERVICE_VENDORS: Readonly<Record<string, readonly string[]>> = {
  'engine-onnx': ['onnxruntime-node', '@huggingface/tokenizers'],
  'inference-node': ['sharp'],
  jobs: ['@aws-sdk/client-s3', '@aws-sdk/s3-request-presigner', 'standardwebhooks'],
};

/** Who else may touch the outside world, and why. main.ts and libs/runtime need no line. */
const AMBIENT_EXEMPTIONS: Readonly<Record<string, { names: readonly string[]; because: string }>> = {
  'libs/grpc/channel.ts': { names: ['Date.now'], because: 'grpc-js takes deadlines as wall-clock dates' },
  'libs/grpc/server.ts': { names: ['Date.now'], because: 'grpc-js gives deadlines as wall-clock dates' },
  'libs/tls/material.ts': { names: ['Date.now'], because: 'certificates are good between two dates of the calendar' },
  'libs/telemetry/logger.ts': { names: ['setTimeout'], because: 'lines leave stdout a moment later; nothing is decided by when' },
  'libs/local-mesh/child.ts': { names: ['process'], because: 'signals the process group of a child it started' },
  'libs/embedded-model/training/score.ts': { names: ['console', 'process'], because: 'a program of its own, run by hand' },
  'libs/local-mesh/folder-lock.ts': { names: ['Date.now'], because: 'asks how old the file is that keeps others from looking' },
  'services/inference-node/engine/child.ts': { names: ['process'], because: 'signals the engine it started' },
  'services/router/audit-log.ts': { names: ['Date.now'], because: 'lines tell people the time of day; nothing is decided by it' },
  'services/inference-node/gpu/lock.ts': { names: ['Date.now'], because: 'asks how old the file is that keeps others from looking' },
};

const root = path.resolve(import.meta.dirname, '../..');
const product = ['libs', 'services'].flatMap((folder) => filesUnder(folder)).map(read);

function filesUnder(folder: string): string[] {
  return readdirSync(path.join(root, folder), { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile() && /\.ts$/.test(entry.name) && !/\.(test|d)\.ts$/.test(entry.name))
    .map((entry) => path.relative(root, path.join(entry.parentPath, entry.name)).split(path.sep).join('/'))
    .filter((file) => !file.startsWith('libs/contracts/generated/'));
}

function read(file: string) {
  const [area = '', unit = ''] = file.split('/');
  return { file, area, unit, name: path.basename(file), ...sourceFacts(readFileSync(path.join(root, file), 'utf8')) };
}

/** "@scope/name" or "name" of a bare specifier. */
function packageOf(specifier: string): string {
  return specifier
    .split('/')
    .slice(0, specifier.startsWith('@') ? 2 : 1)
    .join('/');
}

const isLib = (specifier: string) => specifier.startsWith('#');
const isVendor = (specifier: string) => !/^[#.]|^node:/.test(specifier);

test('the table lists every lib, once, after the libs it uses, and package.json names it', () => {
  const folders = [...new Set(product.filter(({ area }) => area === 'libs').map(({ unit }) => unit))].sort();
  const names = Object.keys(LIBS);
  expect(folders.filter((folder) => !names.includes(folder))).toEqual([]);
  for (const [index, name] of names.entries()) {
    for (const used of LIBS[name]?.libs ?? []) expect(names.indexOf(used), `${name} uses ${used}`).toBeLessThan(index);
  }
  const { imports } = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8'));
  for (const folder of folders) expect(imports[`#${folder}`]).toBe(`./dist/libs/${folder}/index.js`);
});

test('a lib imports only the libs below it; types of those whose events it observes', () => {
  const faults = product
    .filter(({ area }) => area === 'libs')
    .flatMap(({ file, unit, imports }) =>
      imports
        .filter(({ from, typeOnly }) => {
          const allowed = LIBS[unit];
          const used = from.slice(1);
          return isLib(from) && !allowed?.libs.includes(used) && !(typeOnly && allowed?.types?.includes(used));
        })
        .map(({ from }) => `${file} imports ${from}`),
    );
  expect(faults).toEqual([]);
});

test('every vendor has one door', () => {
  const faults = product.flatMap(({ file, area, unit, imports }) => {
    const vendors = area === 'libs' ? LIBS[unit]?.vendors : SERVICE_VENDORS[unit];
    return imports.filter(({ from }) => isVendor(from) && !vendors?.includes(packageOf(from))).map(({ from }) => `${file} imports ${from}`);
  });
  expect(faults).toEqual([]);
});

test('core, noise and scheduling are pure: nothing of Node', () => {
  const faults = product
    .filter(({ area, unit }) => area === 'libs' && !LIBS[unit]?.node)
    .flatMap(({ file, imports }) => imports.filter(({ from }) => from.startsWith('node:')).map(({ from }) => `${file} imports ${from}`));
  expect(faults).toEqual([]);
});

test('relative imports stay at home: no service imports another, no lib is entered but by its name, no product imports tests', () => {
  const faults = product.flatMap(({ file, area, unit, imports }) =>
    imports
      .filter(({ from }) => {
        if (!from.startsWith('.')) return false;
        const target = path.posix.join(path.posix.dirname(file), from);
        return !target.startsWith(`${area}/${unit}/`) || /\.test\.js$/.test(target);
      })
      .map(({ from }) => `${file} imports ${from}`),
  );
  expect(faults).toEqual([]);
});

test('time, chance, process and console come in from main.ts and libs/runtime', () => {
  const faults = product
    .filter(({ area, unit, name }) => name !== 'main.ts' && !(area === 'libs' && unit === 'runtime'))
    .flatMap(({ file, ambient }) => {
      const exempt = AMBIENT_EXEMPTIONS[file]?.names ?? [];
      return ambient.filter((name) => !exempt.includes(name)).map((name) => `${file} uses ${name}`);
    });
  expect(faults).toEqual([]);
});

test('no exemption has outlived its need', () => {
  const idle = Object.entries(AMBIENT_EXEMPTIONS).flatMap(([file, { names }]) => {
    const used = product.find((source) => source.file === file)?.ambient ?? [];
    return names.filter((name) => !used.includes(name)).map((name) => `${file}: ${name}`);
  });
  expect(idle).toEqual([]);
});

// A rule that cannot find anything would pass for ever.
test.each([
  ["import pino from 'pino'", [{ from: 'pino', typeOnly: false }]],
  ["import type { A } from '#grpc'", [{ from: '#grpc', typeOnly: true }]],
  ["import { type A, type B } from '#grpc'", [{ from: '#grpc', typeOnly: false }]],
  ["export { a } from '../x.js'", [{ from: '../x.js', typeOnly: false }]],
  ["export * from '#bus'", [{ from: '#bus', typeOnly: false }]],
  ["const a = await import('nats')", [{ from: 'nats', typeOnly: false }]],
  ["createRequire(import.meta.url)('opossum')", [{ from: 'opossum', typeOnly: false }]],
  ["type A = import('nats').Msg", [{ from: 'nats', typeOnly: true }]],
  ["import 'side-effect'", [{ from: 'side-effect', typeOnly: false }]],
  ["// import pino from 'pino'", []],
])('sourceFacts() sees the import in %s', (source, imports) => {
  expect(sourceFacts(source).imports).toEqual(imports);
});

test.each([
  ['const t = Date.now();', ['Date.now']],
  ['const t = new Date();', ['Date.now']],
  ['const t = new Date(epochMs);', []],
  ['const random = options.random ?? Math.random;', ['Math.random']],
  ['setTimeout(f, 1);', ['setTimeout']],
  ['const { env } = process;', ['process']],
  ["import { kill } from 'node:process';", ['process']],
  ['console.log(1);', ['console']],
  ['const f = (process: string) => process.length;', []],
  ['function f({ process }: Options) { return process.env; }', []],
  ['const a = { process }; ', ['process']],
  ['const a = line.process; const b = { process: 1 }; interface C { process: string }', []],
  ['// Date.now() and "process.env"', []],
])('sourceFacts() sees what is ambient in %s', (source, ambient) => {
  expect(sourceFacts(source).ambient).toEqual(ambient);
});
