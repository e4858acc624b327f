/** How this process proves itself to NATS, when NATS asks. */
import { readFileSync } from 'node:fs';
import { type ConnectionOptions, credsAuthenticator } from 'nats';

export type BusCredentials =
  | { readonly kind: 'user'; readonly user: string; readonly password: string }
  | { readonly kind: 'token'; readonly token: string }
  /** A .creds file as nsc writes it; read again for every connection, so it can be rotated. */
  | { readonly kind: 'credsFile'; readonly path: string };

export function credentialOptions(credentials: BusCredentials | undefined): Partial<ConnectionOptions> {
  switch (credentials?.kind) {
    case undefined:
      return {};
    case 'user':
      return { user: credentials.user, pass: credentials.password };
    case 'token':
      return { token: credentials.token };
    case 'credsFile':
      return { authenticator: credsAuthenticator(readFileSync(credentials.path)) };
    default:
      return credentials satisfies never;
  }
}
