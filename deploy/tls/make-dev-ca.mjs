// Certificates to try TLS with, on one machine or a few:
//
//   node deploy/tls/make-dev-ca.mjs DIR [HOST …] [--days N]
//
// Makes in DIR two CAs and what they vouch for. mesh-ca.pem: routers, nodes, the jobs service, NATS and operators,
// who trust each other. caller-ca.pem: those who may only ask for pictures. HOST is a name or address at which servers
// are called, besides this machine's own. Run again it keeps the CAs and makes the rest anew, in place, which
// running services follow. The keys of the CAs lie unprotected in DIR: for development, not for a company.
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { hostname } from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';

const CA_DAYS = 3650;
const say = (text) => process.stderr.write(`${text}\n`);
const BOTH = 'serverAuth,clientAuth';

/** Who shows what. Servers carry the hosts; the names ending in .dmesh say what part of the mesh it is. */
const LEAVES = [
  { file: 'router', ca: 'mesh-ca', server: true, usage: BOTH },
  { file: 'node', ca: 'mesh-ca', server: true, usage: BOTH },
  { file: 'jobs', ca: 'mesh-ca', server: true, usage: BOTH },
  { file: 'nats', ca: 'mesh-ca', server: true, usage: BOTH },
  { file: 'operator', ca: 'mesh-ca', server: false, usage: 'clientAuth' },
  { file: 'client', ca: 'caller-ca', server: false, usage: 'clientAuth' },
];

class Refusal extends Error {}

try {
  run();
} catch (error) {
  if (!(error instanceof Refusal)) throw error;
  say(error.message);
  process.exitCode = 64;
}

function run() {
  const { dir, hosts, days } = readArguments();
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  const work = mkdtempSync(path.join(dir, '.making-'));
  try {
    for (const name of ['mesh-ca', 'caller-ca']) if (!existsSync(path.join(dir, `${name}.pem`))) makeCa(dir, work, name);
    for (const leaf of LEAVES) makeLeaf({ dir, work, hosts, days }, leaf);
  } finally {
    rmSync(work, { recursive: true });
  }
  say(`made in ${dir}: mesh-ca, caller-ca, ${LEAVES.map(({ file }) => file).join(', ')} (.pem and .key each)`);
  say(`servers are called ${hosts.join(', ')}; good for ${days} days; run this again to renew`);
}

function readArguments() {
  let parsed;
  try {
    parsed = parseArgs({ allowPositionals: true, options: { days: { type: 'string', default: '365' } } });
  } catch (error) {
    throw new Refusal(error.message);
  }
  const [dir, ...more] = parsed.positionals;
  const days = Number(parsed.values.days);
  if (dir === undefined) throw new Refusal('expected: node deploy/tls/make-dev-ca.mjs DIR [HOST …] [--days N]');
  if (!Number.isInteger(days) || days < 1) throw new Refusal(`--days: expected a whole number of days, got ${parsed.values.days}`);
  const wrong = more.find((host) => !/^[A-Za-z0-9.:_-]+$/.test(host) || (host.includes(':') && isIP(host) === 0));
  if (wrong !== undefined) throw new Refusal(`expected names or addresses of hosts, without ports, got ${wrong}`);
  return { dir: path.resolve(dir), days, hosts: [...new Set(['localhost', '127.0.0.1', '::1', hostname(), ...more])] };
}

function makeCa(dir, work, name) {
  const config = write(work, 'ca.cnf', [
    ...subject(`Diffusion Mesh development ${name}`),
    '[ext]',
    'basicConstraints = critical,CA:TRUE',
    'keyUsage = critical,keyCertSign,cRLSign',
    'subjectKeyIdentifier = hash',
  ]);
  makeKey(work, name);
  const terms = ['-days', CA_DAYS, '-config', config, '-extensions', 'ext'];
  openssl('req', '-x509', '-new', '-sha256', '-key', at(work, name, 'key'), ...terms, '-out', at(work, name, 'pem'));
  install(work, dir, name);
}

function makeLeaf({ dir, work, hosts, days }, { file, ca, server, usage }) {
  const names = [`${file}.dmesh`, ...(server ? hosts : [])];
  const config = write(work, 'leaf.cnf', [
    ...subject(`${file}.dmesh`),
    '[ext]',
    'basicConstraints = critical,CA:FALSE',
    'keyUsage = critical,digitalSignature',
    `extendedKeyUsage = ${usage}`,
    `subjectAltName = ${names.map((name) => `${isIP(name) === 0 ? 'DNS' : 'IP'}:${name}`).join(',')}`,
  ]);
  const request = path.join(work, 'request.pem');
  makeKey(work, file);
  openssl('req', '-new', '-sha256', '-key', at(work, file, 'key'), '-config', config, '-out', request);
  const signer = ['-CA', at(dir, ca, 'pem'), '-CAkey', at(dir, ca, 'key'), '-set_serial', `0x${randomBytes(15).toString('hex')}`];
  const terms = ['-days', days, '-extfile', config, '-extensions', 'ext'];
  openssl('x509', '-req', '-sha256', '-in', request, ...signer, ...terms, '-out', at(work, file, 'pem'));
  install(work, dir, file);
}

function makeKey(work, name) {
  openssl('ecparam', '-name', 'prime256v1', '-genkey', '-noout', '-out', at(work, name, 'key'));
  chmodSync(at(work, name, 'key'), 0o600);
}

/** By renames: who follows the files reads old or new ones. */
function install(work, dir, name) {
  for (const kind of ['key', 'pem']) renameSync(at(work, name, kind), at(dir, name, kind));
}

function subject(commonName) {
  return ['[req]', 'prompt = no', 'distinguished_name = dn', '[dn]', 'O = Diffusion Mesh', `CN = ${commonName}`];
}

function write(work, name, lines) {
  const file = path.join(work, name);
  writeFileSync(file, `${lines.join('\n')}\n`);
  return file;
}

function at(dir, name, kind) {
  return path.join(dir, `${name}.${kind}`);
}

function openssl(...args) {
  try {
    execFileSync('openssl', args.map(String), { stdio: ['ignore', 'ignore', 'pipe'] });
  } catch (error) {
    if (error.code === 'ENOENT') throw new Refusal('expected the program openssl, found none: install the package "openssl"');
    throw new Refusal(`openssl ${args[0]}: ${String(error.stderr ?? error).trim()}`);
  }
}
