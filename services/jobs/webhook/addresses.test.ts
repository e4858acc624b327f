import { expect, test } from 'vitest';
import { addressRule } from './addresses.js';

const PUBLIC = ['8.8.8.8', '1.1.1.1', '100.63.255.255', '100.128.0.0', '172.15.255.255', '172.32.0.0', '192.0.1.0', '223.255.255.255'];
const PUBLIC_IPV6 = ['2606:4700::1111', '2a00:1450:4001::1', '2001:200::1', '2620:fe::fe'];
const SPECIAL = [
  ...['0.0.0.0', '0.1.2.3', '10.0.0.1', '100.64.0.1', '100.127.255.255', '127.0.0.1', '127.255.0.9', '169.254.169.254'],
  ...['172.16.0.1', '172.31.255.255', '192.0.0.9', '192.0.2.1', '192.88.99.1', '192.168.1.1', '198.18.0.1', '198.19.255.255'],
  ...['198.51.100.7', '203.0.113.7', '224.0.0.1', '239.255.255.255', '240.0.0.1', '255.255.255.255'],
];
const SPECIAL_IPV6 = [
  ...['::', '::1', '::7f00:1', '::ffff:127.0.0.1', '::ffff:10.0.0.1', '::ffff:8.8.8.8', '::ffff:0:10.0.0.1', '64:ff9b::a00:1'],
  ...['64:ff9b::808:808', '64:ff9b:1::1', '100::1', 'fc00::1', 'fd12:3456::1', 'fe80::1', 'fe80::1%eth0', 'febf::1', 'fec0::1'],
  ...['ff02::1', '2001::1', '2001:0:4136:e378::1', '2001:10::1', '2001:20::1', '2001:db8::1', '2002:a00:1::1', '3fff::1', '4000::1'],
];

test('public addresses are allowed, all others are not', () => {
  const isAllowed = addressRule(undefined);
  for (const address of [...PUBLIC, ...PUBLIC_IPV6]) expect(isAllowed(address), address).toBe(true);
  for (const address of [...SPECIAL, ...SPECIAL_IPV6, '', 'localhost', '10.1', '0x7f.1']) expect(isAllowed(address), address).toBe(false);
});

test('the operator allows ranges besides, and only those', () => {
  const isAllowed = addressRule('127.0.0.0/8, fd00::/8,10.1.2.3');
  for (const address of ['127.0.0.1', 'fd12::1', '10.1.2.3', '::ffff:127.0.0.1', '8.8.8.8']) expect(isAllowed(address), address).toBe(true);
  for (const address of ['10.1.2.4', '::1', 'fc00::1', '192.168.0.1']) expect(isAllowed(address), address).toBe(false);
});

test.each(['', '10.0.0.0/33', '10.0.0.0/', '10.0.0/8', 'fd00::/129', 'example.com', '10.0.0.0/8/8', '10.0.0.0/8,,', '10.0.0.0/-1'])(
  '%j is no range',
  (text) => {
    expect(() => addressRule(text)).toThrow('expected ranges such as 10.0.0.0/8');
  },
);
