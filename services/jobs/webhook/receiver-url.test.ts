import { expect, test } from 'vitest';
import { addressRule } from './addresses.js';
import { checkReceiverUrl } from './receiver-url.js';

const check = (url: string, allow?: string) => {
  const checked = checkReceiverUrl(url, addressRule(allow));
  return checked.ok ? checked.url.href : `refused: ${checked.fault}`;
};

test.each([
  ['https://example.com/hook?key=1#part', 'https://example.com/hook?key=1'],
  ['http://example.com:8080', 'http://example.com:8080/'],
  ['HTTPS://Example.COM:443/', 'https://example.com/'],
  ['https://8.8.8.8/', 'https://8.8.8.8/'],
  ['https://[2606:4700::1111]:8443/', 'https://[2606:4700::1111]:8443/'],
  ['http://example.com:443/', 'http://example.com:443/'],
])('%s may be told', (url, href) => {
  expect(check(url)).toBe(href);
});

test.each([
  ['', 'expected a URL'],
  ['example.com/hook', 'expected a URL'],
  ['ftp://example.com/', 'expected http or https, got ftp:'],
  ['file:///etc/passwd', 'expected http or https, got file:'],
  ['javascript:alert(1)', 'expected http or https'],
  ['unix:/var/run/docker.sock', 'expected http or https'],
  ['https://user:password@example.com/', 'without user and password'],
  ['https://user@example.com/', 'without user and password'],
  ['https://:password@example.com/', 'without user and password'],
  ['http://example.com:25/', 'expected port 80, 443 or one from 1024, got 25'],
  ['http://example.com:0/', 'got 0'],
  ['http://example.com:70000/', 'expected a URL'],
  [`https://example.com/${'x'.repeat(2048)}`, 'expected at most 2048 characters'],
  ['https://exa mple.com/', 'expected a URL'],
])('%s is refused: %s', (url, fault) => {
  expect(check(url)).toContain(`refused: ${fault.startsWith('expected') ? fault : ''}`);
  expect(check(url)).toContain(fault);
});

test.each([
  ...[
    '127.0.0.1',
    '127.1',
    '2130706433',
    '0x7f000001',
    '0x7f.1',
    '0177.0.0.1',
    '017700000001',
    '127.0.0.1.',
    '%31%32%37.0.0.1',
    '１２７.0.0.1',
  ],
  ...['①②⑦.0.0.1', 'localhost', 'LOCALHOST', 'localhost.', 'a.localhost', '0', '0.0.0.0', '10.0.0.1', '169.254.169.254', '100.100.100.200'],
  ...['[::1]', '[::]', '[0:0:0:0:0:0:0:1]', '[::ffff:127.0.0.1]', '[::ffff:7f00:1]', '[fe80::1]', '[fd00::1]', '[64:ff9b::7f00:1]'],
])('http://%s/ is refused by its text', (host) => {
  expect(check(`http://${host}:8080/`)).toContain('refused: expected a host that webhooks may go to');
});

test('what the operator allows may be told, under all its names', () => {
  expect(check('http://localhost:8080/', '127.0.0.0/8')).toBe('http://localhost:8080/');
  expect(check('http://0x7f.1:8080/', '127.0.0.0/8')).toBe('http://127.0.0.1:8080/');
  expect(check('http://[::1]:8080/', '127.0.0.0/8')).toContain('refused');
});
