/**
 * Certificates for a process that only calls others, such as dmesh: read again for each new connection, so
 * that they can be replaced while it runs, without following anything. Files that have become unusable
 * change nothing.
 */
import { readFileSync } from 'node:fs';
import { createSecureContext, type SecureContext } from 'node:tls';
import type { ClientTls } from './connect.js';
import { checkMaterial, listPaths, type TlsMaterial } from './material.js';

export interface ClientTlsPaths {
  /** PEM file of the CAs that may vouch for who is called. */
  readonly ca: string;
  /** PEM files of the certificate and key to show to those who ask for one. */
  readonly cert?: string | undefined;
  readonly key?: string | undefined;
}

/** Throws a RangeError that names every fault when the files cannot be used now. */
export function clientTlsFromFiles(paths: ClientTlsPaths): ClientTls {
  let last = read(paths);
  return {
    context: () => {
      try {
        last = read(paths);
      } catch {
        // being replaced, or broken: the last good ones hold
      }
      return last;
    },
  };
}

function read(paths: ClientTlsPaths): SecureContext {
  if ((paths.cert === undefined) !== (paths.key === undefined))
    throw new RangeError('expected certificate and key together, got one of them');
  const material = Object.fromEntries(listPaths(paths).map(({ file, path }) => [file, readPem(path)])) as TlsMaterial;
  const checked = checkMaterial(paths, material);
  if (!checked.ok) throw new RangeError(checked.faults.join('; '));
  const { ca, cert, key } = material;
  return createSecureContext({ ...(ca ? { ca } : {}), ...(cert && key ? { cert, key } : {}) });
}

function readPem(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    throw new RangeError(`${path}: expected a readable file, got ${error instanceof Error && 'code' in error ? error.code : error}`);
  }
}
