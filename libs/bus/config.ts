/** The one setting of the bus; read through the service's own reader, so --help lists it. */
import type { EnvReader } from '#runtime';
import { parseServers } from './server-list.js';

/** Unlike other settings, a faulty one is not repeated as it is: it may hold a password. */
export function readNatsUrl(read: Pick<EnvReader, 'string' | 'fault'>): string {
  const url = read.string('NATS_URL', 'nats://127.0.0.1:4222', 'NATS servers that carry membership, separated by commas.');
  try {
    parseServers(url);
  } catch (error) {
    read.fault(error instanceof Error ? error.message : String(error));
  }
  return url;
}
