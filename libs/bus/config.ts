/** The settings of the bus; read through the service's own reader, so --help lists them. */
import type { EnvReader } from '#runtime';
import type { BusCredentials } from './credentials.js';
import { parseServers } from './server-list.js';

export interface BusConfig {
  readonly url: string;
  readonly credentials: BusCredentials | undefined;
}

/** Unlike other settings, a faulty URL is not repeated as it is: it may hold a password. */
export function readBusConfig(read: Pick<EnvReader, 'string' | 'optionalString' | 'fault'>): BusConfig {
  const url = read.string('NATS_URL', 'nats://127.0.0.1:4222', 'NATS servers that carry membership, separated by commas.');
  const credsFile = read.optionalString('NATS_CREDS', 'Credentials file (.creds) to show to NATS.');
  const nkeyFile = read.optionalString('NATS_NKEY', 'File with the nkey seed to show to NATS.');
  try {
    const proofs = [parseServers(url).some(({ user }) => user !== undefined), credsFile !== undefined, nkeyFile !== undefined];
    if (proofs.filter(Boolean).length > 1) {
      read.fault('NATS_CREDS: expected one of NATS_CREDS, NATS_NKEY and a user in NATS_URL, got several');
    }
  } catch (error) {
    read.fault(error instanceof Error ? error.message : String(error));
  }
  if (credsFile !== undefined) return { url, credentials: { kind: 'credsFile', path: credsFile } };
  return { url, credentials: nkeyFile === undefined ? undefined : { kind: 'nkeyFile', path: nkeyFile } };
}
