/** What a host name leads to, asked of DNS. */
import { Resolver } from 'node:dns/promises';

export type Resolve = (host: string) => Promise<readonly string[]>;

/** A name server that says nothing is asked twice, within the time a connection may take. */
const ASK = { timeout: 1500, tries: 2 };

/**
 * A resolver of its own and not the system's: that one works in a few threads, which pictures and connections to
 * the mesh need as well; names that take long would hold them. So /etc/hosts and search domains do not count.
 * `servers`: host:port of name servers; the machine's own when absent.
 */
export function dnsResolver(servers?: readonly string[]): Resolve {
  return async (host) => {
    const resolver = new Resolver(ASK); // reads which name servers there are now
    if (servers) resolver.setServers(servers);
    const answers = await Promise.allSettled([resolver.resolve4(host), resolver.resolve6(host)]);
    const addresses = answers.flatMap((answer) => (answer.status === 'fulfilled' ? answer.value : []));
    const [first] = answers;
    if (addresses.length === 0 && first?.status === 'rejected') throw first.reason;
    return addresses;
  };
}
