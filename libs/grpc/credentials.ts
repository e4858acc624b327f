/**
 * TLS for grpc-js, with certificates that change while it runs. Its own createSsl takes them once; these
 * two ask for them at each connection (client) or are told (server). The underscored methods are how
 * grpc-js (1.14, pinned) asks its credentials; credentials.test.ts tells when a new version asks otherwise.
 */
import { CallCredentials, ChannelCredentials, ServerCredentials } from '@grpc/grpc-js';
import type { Clock } from '#core';
import { type ClientTls, hostOf, type ServerTls, secured } from '#tls';

/** Also how long a handshake may take: grpc-js waits for ever. */
export interface ChannelTls extends ClientTls {
  readonly clock: Clock;
  readonly connectTimeoutMs: number;
}

type Connector = ReturnType<ChannelCredentials['_createSecureConnector']>;

class FollowingServerCredentials extends ServerCredentials {
  constructor(tls: ServerTls) {
    super({ requestCert: tls.mutual, rejectUnauthorized: tls.mutual }, tls.material());
    tls.onChange(() => this.updateSecureContextOptions(tls.material()));
  }

  _equals(other: ServerCredentials): boolean {
    return this === other;
  }
}

class FollowingChannelCredentials extends ChannelCredentials {
  constructor(
    private readonly address: string,
    private readonly tls: ChannelTls,
  ) {
    super();
  }

  _isSecure(): boolean {
    return true;
  }

  _equals(other: ChannelCredentials): boolean {
    return this === other;
  }

  _createSecureConnector(_target: unknown, _options: unknown, callCredentials?: CallCredentials): Connector {
    const { address, tls } = this;
    return {
      connect: (plain) =>
        new Promise((resolve, reject) => {
          const socket = secured(plain, hostOf(address), tls);
          const { clock, connectTimeoutMs } = tls;
          const late = () => socket.destroy(new Error(`no TLS handshake within ${connectTimeoutMs} ms`));
          const cancelTimer = clock.schedule(connectTimeoutMs, late);
          socket.once('secureConnect', () => {
            cancelTimer();
            resolve({ socket, secure: true });
          });
          socket.on('error', reject); // stays: a socket that is given up may still report
          socket.once('close', () => {
            cancelTimer();
            reject(new Error('closed during the TLS handshake'));
          });
        }),
      waitForReady: () => Promise.resolve(),
      getCallCredentials: () => callCredentials ?? CallCredentials.createEmpty(),
      destroy: () => {},
    };
  }
}

export function serverCredentials(tls: ServerTls | undefined): ServerCredentials {
  return tls ? new FollowingServerCredentials(tls) : ServerCredentials.createInsecure();
}

export function channelCredentials(address: string, tls: ChannelTls | undefined): ChannelCredentials {
  return tls ? new FollowingChannelCredentials(address, tls) : ChannelCredentials.createInsecure();
}
