import { describe, expect, it } from 'vitest';
import { compareIncarnations, makeIncarnation } from './incarnation.js';
import { parseServers, serverName, shownUrl } from './server-list.js';
import { beatSubject, controlSubject, isNodeId, leaveSubject } from './subjects.js';

describe('subjects', () => {
  it('carry version and node', () => {
    expect([beatSubject('gpu-0_a'), leaveSubject('n'), controlSubject('n')]).toEqual([
      'dmesh.v1.node.gpu-0_a.beat',
      'dmesh.v1.node.n.leave',
      'dmesh.v1.node.n.control',
    ]);
  });

  it.each(['', 'a.b', '*', '>', 'a b', 'ä', 'a\n', 'x'.repeat(65)])('refuse the node id %j', (id) => {
    expect(isNodeId(id)).toBe(false);
    expect(() => beatSubject(id)).toThrow(RangeError);
  });
});

describe('incarnations', () => {
  it('grow with the start time, whatever the tiebreak', () => {
    expect(makeIncarnation(1700000000000.7, () => 0.5)).toBe('1700000000000-i00000');
    expect(compareIncarnations('999-zzzzzz', '1000-aaaaaa')).toBeLessThan(0);
    expect(compareIncarnations('1000-b', '1000-a')).toBeGreaterThan(0);
    expect(compareIncarnations('1000-a', '1000-a')).toBe(0);
  });

  it('are ordered even when they are no times', () => {
    expect(compareIncarnations('b', 'a')).toBeGreaterThan(0);
    expect(compareIncarnations('a', 'b')).toBeLessThan(0);
  });
});

describe('parseServers()', () => {
  it.each([
    ['nats://127.0.0.1:4333', { host: '127.0.0.1', port: 4333, tls: false }],
    ['localhost', { host: 'localhost', port: 4222, tls: false }],
    ['nats.example:80', { host: 'nats.example', port: 80, tls: false }],
    ['tls://[::1]:4222/', { host: '::1', port: 4222, tls: true }],
    ['nats://u%40x:p%3Aw@h:1', { host: 'h', port: 1, tls: false, user: 'u@x', password: 'p:w' }],
  ])('reads %s', (text, server) => {
    expect(parseServers(text)).toEqual([server]);
  });

  it('reads several, and names them', () => {
    expect(parseServers('nats://a:1, nats://[::1]:2').map(serverName)).toEqual(['a:1', '[::1]:2']);
  });

  it.each(['', 'http://a', 'nats://a:notaport', 'nats://a/path', 'nats://a,'])('refuses %j', (text) => {
    expect(() => parseServers(text)).toThrow(/expected nats:/);
  });

  it.each(['nats://me:secret@a:b', 'nats://u:p@a,nats://me:secret@a:b', 'nats://me:1/secret@a:b', 'nats://me:1#secret@a:b'])(
    'does not repeat a password in its complaint of %s',
    (text) => {
      expect(() => parseServers(text)).toThrow(/got "\*\*\*@a:b"$/);
    },
  );
});

describe('shownUrl()', () => {
  it.each([
    ['nats://u:p@a,nats://u2:secret2@c', 'nats://***@a:4222,nats://***@c:4222'],
    ['tls://u:a%2Fb%40c@[::1]:1, nats://token@b:80, c', 'tls://***@[::1]:1,nats://***@b:80,nats://c:4222'],
    ['nats://u:a/b@c', '***@c'],
    ['nats://u:a,b@c', '***@c'],
    ['nats://u:1://secret@c', '***@c'],
    ['nonsense://', 'nonsense://'],
  ])('of %s is %s', (text, shown) => {
    expect(shownUrl(text)).toBe(shown);
  });
});
