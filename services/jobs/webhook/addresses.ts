/**
 * May a webhook go to this address? Whoever submits a job names the URL, so without this rule it could make the
 * service ask anything inside its own network (server-side request forgery). Allowed is what the registries of
 * special-purpose addresses (RFC 6890, kept by IANA) leave as reachable from everywhere, and what the operator
 * allows besides.
 */
import { BlockList, isIP } from 'node:net';

export type IsAllowed = (address: string) => boolean;

const SPECIAL_IPV4 = [
  '0.0.0.0/8', // this network
  '10.0.0.0/8', // private
  '100.64.0.0/10', // carrier-grade NAT
  '127.0.0.0/8', // loopback
  '169.254.0.0/16', // link-local, and where clouds answer with credentials
  '172.16.0.0/12', // private
  '192.0.0.0/24', // protocol assignments
  '192.0.2.0/24', // documentation
  '192.88.99.0/24', // 6to4 relays
  '192.168.0.0/16', // private
  '198.18.0.0/15', // benchmarks
  '198.51.100.0/24', // documentation
  '203.0.113.0/24', // documentation
  '224.0.0.0/4', // multicast
  '240.0.0.0/4', // reserved, and broadcast
];
/**
 * All else is something special: loopback, unspecified, mapped IPv4 (::ffff:0:0/96), NAT64 (64:ff9b::/96 and
 * 64:ff9b:1::/48), unique-local, link-local, multicast.
 */
const GLOBAL_UNICAST_IPV6 = ['2000::/3'];
const SPECIAL_IPV6 = [
  '2001::/23', // protocol assignments; Teredo, which carries an IPv4 address
  '2001:db8::/32', // documentation
  '2002::/16', // 6to4, which carries an IPv4 address
  '3fff::/20', // documentation
];

const specialIpv4 = rangesOf(SPECIAL_IPV4);
const globalIpv6 = rangesOf(GLOBAL_UNICAST_IPV6);
const specialIpv6 = rangesOf(SPECIAL_IPV6);

/** `allow`: ranges such as "10.0.0.0/8,fd00::/8" that are allowed besides; throws a sentence when they are none. */
export function addressRule(allow: string | undefined): IsAllowed {
  const allowed = rangesOf(allow === undefined ? [] : allow.split(',').map((range) => range.trim()));
  return (address) => {
    const version = isIP(address);
    if (version === 0) return false;
    if (allowed.check(address, version === 4 ? 'ipv4' : 'ipv6')) return true;
    return version === 4 ? !specialIpv4.check(address, 'ipv4') : globalIpv6.check(address, 'ipv6') && !specialIpv6.check(address, 'ipv6');
  };
}

function rangesOf(texts: readonly string[]): BlockList {
  const ranges = new BlockList();
  for (const text of texts) {
    const [address = '', bits = '', ...more] = text.split('/');
    const version = isIP(address);
    const most = version === 4 ? 32 : 128;
    const bitCount = bits === '' && !text.includes('/') ? most : /^\d{1,3}$/.test(bits) ? Number(bits) : Number.NaN;
    if (version === 0 || more.length > 0 || !(bitCount <= most)) {
      throw new Error(`expected ranges such as 10.0.0.0/8 or fd00::/8, got ${JSON.stringify(text)}`);
    }
    ranges.addSubnet(address, bitCount, version === 4 ? 'ipv4' : 'ipv6');
  }
  return ranges;
}
