import dgram from 'node:dgram';
import { once } from 'node:events';
import { afterEach, expect, test } from 'vitest';
import { dnsResolver } from './resolve.js';

const A = 1;
const AAAA = 28;
let server: dgram.Socket | undefined;
afterEach(() => server?.close());

/** A name server: the record's bytes for each kind that is asked for; without, there is none. */
async function nameServer(records: Readonly<Record<number, Buffer>>): Promise<string> {
  const socket = dgram.createSocket('udp4');
  server = socket;
  socket.on('message', (query, from) => {
    const end = query.indexOf(0, 12) + 5; // of the question: name, kind, class
    const kind = query.readUInt16BE(end - 4);
    const record = records[kind];
    const head = Buffer.from(query.subarray(0, 12));
    head.writeUInt16BE(0x8180, 2); // an answer, without an error
    head.writeUInt16BE(record ? 1 : 0, 6);
    head.fill(0, 8);
    const answer = record && Buffer.concat([Buffer.from([0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 0, 0, record.length]), record]);
    socket.send(Buffer.concat([head, query.subarray(12, end), ...(answer ? [answer] : [])]), from.port, from.address);
  });
  socket.bind(0, '127.0.0.1');
  await once(socket, 'listening');
  return `127.0.0.1:${socket.address().port}`;
}

const v4 = Buffer.from([192, 0, 2, 7]);
const v6 = Buffer.from('20010db8000000000000000000000007', 'hex');

test.each([
  [{ [A]: v4, [AAAA]: v6 }, ['192.0.2.7', '2001:db8::7']],
  [{ [A]: v4 }, ['192.0.2.7']],
  [{ [AAAA]: v6 }, ['2001:db8::7']],
])('a name leads to all its addresses: %#', async (records, addresses) => {
  expect(await dnsResolver([await nameServer(records)])('receiver.example')).toEqual(addresses);
});

test('a name without addresses leads nowhere', async () => {
  await expect(dnsResolver([await nameServer({})])('receiver.example')).rejects.toMatchObject({ code: 'ENODATA' });
});
