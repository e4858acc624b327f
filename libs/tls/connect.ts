/**
 * The client's end of TLS: one way to open it for every leg that speaks it, so that all of them check the
 * same things. Who is called must show a certificate that a trusted CA vouches for and that holds the name
 * expected: the host that was dialled, or one name that all servers of a kind share.
 */
import { isIP, type Socket } from 'node:net';
import { type ConnectionOptions, checkServerIdentity, connect, type SecureContext, type TLSSocket } from 'node:tls';

/** How a client speaks TLS. */
export interface ClientTls {
  /** Asked for at each new connection. */
  readonly context: () => SecureContext;
  /** Name that the peer's certificate must hold; default the host of its address. */
  readonly serverName?: string | undefined;
}

/** Over a socket that is connected or connecting. The caller hears 'secureConnect' or 'error'. */
export function secured(socket: Socket, host: string, tls: ClientTls): TLSSocket {
  return connect({ socket, ALPNProtocols: ['h2'], ...peerOptions(host, tls) });
}

/** What node:tls must know of the peer, for whoever opens the connection. */
export function peerOptions(host: string, tls: ClientTls): Pick<ConnectionOptions, 'secureContext' | 'servername' | 'checkServerIdentity'> {
  const name = tls.serverName ?? host;
  return {
    secureContext: tls.context(),
    // An address must not be asked for by name (RFC 6066), and Node would check "localhost" instead of it.
    ...(isIP(name) === 0 ? { servername: name } : {}),
    checkServerIdentity: (_, certificate) => checkServerIdentity(name, certificate),
  };
}

/** "10.0.0.7" of "10.0.0.7:50052", "::1" of "[::1]:50052". */
export function hostOf(address: string): string {
  return address.slice(0, address.lastIndexOf(':')).replace(/^\[|\]$/g, '');
}
