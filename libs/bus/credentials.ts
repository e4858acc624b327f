/** How this process proves itself to NATS, when NATS asks. Files are read again for every connection, so they can be replaced. */
import { readFileSync } from 'node:fs';
import { type ConnectionOptions, credsAuthenticator, nkeyAuthenticator } from 'nats';

export type BusCredentials =
  | { readonly kind: 'user'; readonly user: string; readonly password: string }
  | { readonly kind: 'token'; readonly token: string }
  /** A .creds file as nsc writes it. */
  | { readonly kind: 'credsFile'; readonly path: string }
  /** The seed of an nkey of a user, as "nk -gen user" prints it. */
  | { readonly kind: 'nkeyFile'; readonly path: string };

const SEED = /SU[A-Z2-7]{56}/;

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
    case 'nkeyFile':
      return { authenticator: nkeyAuthenticator(seedIn(credentials.path)) };
    default:
      return credentials satisfies never;
  }
}

function seedIn(path: string): Uint8Array {
  const [seed] = SEED.exec(readFileSync(path, 'latin1')) ?? [];
  if (seed === undefined) throw new Error(`${path}: expected the seed of a user's nkey (SU…), got something else`);
  return Buffer.from(seed);
}
