/** TLS on both legs against real sockets: who is believed, what is said when nobody is, and files that change. */
import { copyFile } from 'node:fs/promises';
import { connect } from 'node:tls';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { generation } from '#contracts';
import { Reason, type StatusError } from '#core';
import { systemClock } from '#runtime';
import { type ClientTls, clientTlsFromFiles, type TlsEvent, TlsSource } from '#tls';
import { type DevCa, makeDevCa } from '../../test/support/dev-ca.js';
import { Channel } from './channel.js';
import { Pieces } from './pieces.js';
import { Server } from './server.js';

const Pictures = generation.ImageGenerationServiceService;
/** A busy machine takes its time. */
const PATIENCE = { timeout: 8000 };
const PICTURE = Buffer.alloc(3_000_000, 7);
const BIG = generation.GenerateResponse.fromPartial({ images: [{ data: PICTURE }] });

let ca: DevCa;
let other: DevCa;
beforeAll(async () => {
  [ca, other] = await Promise.all([makeDevCa(), makeDevCa()]);
});
afterAll(() => Promise.all([ca.drop(), other.drop()]));

const cleanups: (() => Promise<void> | void)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

/** A server of certificates that a test may change, with their source. */
async function serve({ callers }: { callers?: 'ca' } = { callers: 'ca' }) {
  const file = (name: string) => ca.file(`served-${name}`);
  for (const name of ['router.pem', 'router.key', 'mesh-ca.pem']) await copyFile(ca.file(name), file(name));
  const events: TlsEvent[] = [];
  const paths = { cert: file('router.pem'), key: file('router.key'), ca: file('mesh-ca.pem') };
  const source = new TlsSource({ paths, clock: systemClock, emit: (event) => events.push(event) });
  await source.start();
  const server = new Server({ clock: systemClock, emit: () => {}, maxRequestBytes: 1 << 20, tls: source.server(callers) });
  server.add(Pictures, {
    generate: async () => new Pieces([Buffer.from(generation.GenerateResponse.encode(BIG).finish())]) as never,
    generateStream: async () => {},
    listModels: async () => ({ models: [] }),
  });
  const port = await server.listen('127.0.0.1:0');
  cleanups.push(async () => {
    await server.close();
    source.close();
  });
  return { source, events, port, file };
}

function channelTo(address: string, tls: ClientTls | undefined): Channel {
  const channel = new Channel(address, { clock: systemClock, tls });
  cleanups.push(() => channel.close());
  return channel;
}

const trusted = (name?: string, from = ca) =>
  clientTlsFromFiles({
    ca: ca.file('mesh-ca.pem'),
    ...(name === undefined ? {} : { cert: from.file(`${name}.pem`), key: from.file(`${name}.key`) }),
  });

/** What both legs say: OK, or the sentence after the address. */
async function ask(channel: Channel): Promise<readonly string[]> {
  const legs = [channel.unary(Pictures.listModels, {}), channel.unaryRaw(Pictures.listModels, {})];
  const said = (error: StatusError) => `${error.reason} ${error.message.replace(/^no connection to \S+: /, '')}`;
  return Promise.all(legs.map((leg: Promise<unknown>) => leg.then(() => 'OK', said)));
}

test('three megabytes pass over both legs', async () => {
  const { port } = await serve();
  const channel = channelTo(`127.0.0.1:${port}`, trusted('operator'));
  const request = generation.GenerateRequest.fromPartial({ prompt: 'x' });
  const drawn = ({ images }: generation.GenerateResponse) => images.map(({ data }) => PICTURE.equals(data));
  expect(drawn((await channel.unary(Pictures.generate, request)).response)).toEqual([true]);
  const { response } = await channel.unaryRaw(Pictures.generate, request);
  expect(drawn(generation.GenerateResponse.decode(response.toBuffer()))).toEqual([true]);
});

test('who is believed, on both legs alike', async () => {
  const { port, source } = await serve();
  const at = `127.0.0.1:${port}`;
  const wrongCa = clientTlsFromFiles({ ca: other.file('mesh-ca.pem'), cert: ca.file('operator.pem'), key: ca.file('operator.key') });
  const cases: readonly (readonly [string, ClientTls | undefined, string])[] = [
    [at, trusted('operator'), 'OK'],
    [`localhost:${port}`, trusted('operator'), 'OK'],
    [at, source.client({ serverName: 'router.dmesh' }), 'OK'],
    [at, source.client({ serverName: 'node.dmesh' }), 'its certificate is for another name: Host: node.dmesh'],
    [at, trusted(), 'it asks for a certificate and none was shown'],
    [at, trusted('operator', other), 'perhaps it does not accept the certificate shown'],
    [at, trusted('client'), 'perhaps it does not accept the certificate shown'],
    [at, wrongCa, 'its certificate is not of the CA that is trusted here'],
    [at, undefined, 'perhaps it speaks TLS'],
  ];
  for (const [address, tls, expected] of cases) {
    for (const said of await ask(channelTo(address, tls))) {
      expect(said).toContain(expected);
      if (expected !== 'OK') expect(said).toContain(Reason.CONNECT_FAILED);
    }
  }
});

test('a plain server is told from one of TLS', async () => {
  const server = new Server({ clock: systemClock, emit: () => {}, maxRequestBytes: 1 << 20 });
  const port = await server.listen('127.0.0.1:0');
  cleanups.push(() => server.close());
  expect(await ask(channelTo(`127.0.0.1:${port}`, trusted()))).toEqual(
    Array.from({ length: 2 }, () => `${Reason.CONNECT_FAILED} it does not speak TLS`),
  );
});

test('without a CA of callers nobody is asked for a certificate', async () => {
  const { port } = await serve({});
  expect(await ask(channelTo(`127.0.0.1:${port}`, trusted()))).toEqual(['OK', 'OK']);
});

/** Of the certificate a new connection is shown. */
function serialAt(port: number): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: '127.0.0.1', port, secureContext: trusted('operator').context() }, () => {
      resolve(socket.getPeerCertificate().serialNumber);
      socket.destroy();
    });
    socket.once('error', reject);
  });
}

test('new connections are shown new certificates, open ones go on, and files that do not fit change nothing', async () => {
  const { port, events, file } = await serve();
  const open = channelTo(`127.0.0.1:${port}`, trusted('operator'));
  expect(await ask(open)).toEqual(['OK', 'OK']);
  const first = await serialAt(port);
  await copyFile(ca.file('node.key'), file('router.key')); // another's key
  await expect
    .poll(() => events.at(-1), PATIENCE)
    .toMatchObject({ type: 'tlsRejected', faults: [expect.stringContaining('expected the key of')] });
  expect(await serialAt(port)).toBe(first);
  await ca.renew();
  for (const name of ['router.key', 'router.pem']) await copyFile(ca.file(name), file(name));
  await expect.poll(() => serialAt(port), PATIENCE).not.toBe(first);
  expect(events.at(-1)?.type).toBe('tlsLoaded');
  expect(await ask(open)).toEqual(['OK', 'OK']);
});

test('a caller takes new files at its next connection, and its last good ones while they are broken', async () => {
  const { port } = await serve();
  const file = (kind: string) => ca.file(`caller.${kind}`);
  for (const kind of ['pem', 'key']) await copyFile(ca.file(`client.${kind}`), file(kind));
  const tls = clientTlsFromFiles({ ca: ca.file('mesh-ca.pem'), cert: file('pem'), key: file('key') });
  const address = `127.0.0.1:${port}`;
  expect((await ask(channelTo(address, tls))).join()).toContain('perhaps it does not accept');
  await copyFile(ca.file('operator.pem'), file('pem'));
  expect((await ask(channelTo(address, tls))).join()).toContain('perhaps it does not accept'); // the key is missing yet
  await copyFile(ca.file('operator.key'), file('key'));
  expect(await ask(channelTo(address, tls))).toEqual(['OK', 'OK']);
});
