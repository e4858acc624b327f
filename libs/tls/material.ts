/**
 * Certificates, keys and the CAs that are trusted, out of PEM files. Everything is checked before it is
 * used, and a fault names its file: OpenSSL takes some garbage in silence (a CA file without a certificate
 * trusts nobody) and words the rest for its own authors.
 */
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { createSecureContext } from 'node:tls';

/** What each file is for. `cert` and `key`: shown to peers. `ca`, `callerCa`: whose certificates are believed. */
export const TLS_FILES = ['cert', 'key', 'ca', 'callerCa'] as const;
export type TlsFile = (typeof TLS_FILES)[number];

/** Paths of the files there are. */
export type TlsPaths = { readonly [File in TlsFile]?: string | undefined };

/** PEM text by file. */
export type TlsMaterial = { readonly [File in TlsFile]?: Buffer };

export type CheckedMaterial =
  | {
      readonly ok: true;
      readonly material: TlsMaterial;
      /** When the first certificate of each file expires, in milliseconds since 1970. */
      readonly expiries: readonly { readonly file: TlsFile; readonly atEpochMs: number }[];
    }
  | { readonly ok: false; readonly faults: readonly string[] };

/** Far more than any chain; a wrong path may lead to anything. */
export const MAX_PEM_BYTES = 4 * 1024 * 1024;
const CERTIFICATE = /-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g;

/** The paths that are set, in a fixed order. */
export function listPaths(paths: TlsPaths): readonly { readonly file: TlsFile; readonly path: string }[] {
  return TLS_FILES.flatMap((file) => {
    const path = paths[file];
    return path === undefined ? [] : [{ file, path }];
  });
}

/** Never throws. `nowEpochMs`: certificates are good between two dates of the calendar. */
export function checkMaterial(paths: TlsPaths, material: TlsMaterial, nowEpochMs = Date.now()): CheckedMaterial {
  const faults: string[] = [];
  const expiries: { file: TlsFile; atEpochMs: number }[] = [];
  for (const file of ['cert', 'ca', 'callerCa'] as const) {
    const pem = material[file];
    if (!pem) continue;
    const certificates = certificatesIn(pem);
    if (certificates) {
      expiries.push({ file, atEpochMs: Math.min(...certificates.map(({ validTo }) => Date.parse(validTo))) });
      // Peers look at the first of a chain; of CAs, an old one may stay beside the one that follows it.
      const untimely = (file === 'cert' ? certificates.slice(0, 1) : certificates).map((one) => untimeliness(one, nowEpochMs));
      if (untimely.every((why) => why !== undefined))
        faults.push(`${paths[file]}: expected a certificate that is good now, got ${untimely[0]}`);
    } else faults.push(`${paths[file]}: expected certificates in PEM form, got something else`);
  }
  if (faults.length === 0) faults.push(...faultsOfKey(paths, material));
  return faults.length > 0 ? { ok: false, faults } : { ok: true, material, expiries };
}

/** Undefined when it is good at this time. */
function untimeliness({ validFrom, validTo }: X509Certificate, nowEpochMs: number): string | undefined {
  if (Date.parse(validTo) <= nowEpochMs) return `one that expired on ${validTo}`;
  return Date.parse(validFrom) > nowEpochMs ? `one that begins on ${validFrom}; compare the clocks` : undefined;
}

function faultsOfKey(paths: TlsPaths, { cert, key }: TlsMaterial): readonly string[] {
  if (!cert || !key) return [];
  try {
    const privateKey = createPrivateKey(key);
    if (!new X509Certificate(cert).checkPrivateKey(privateKey)) return [`${paths.key}: expected the key of ${paths.cert}, got another one`];
  } catch {
    return [`${paths.key}: expected a private key in PEM form, without a passphrase, got something else`];
  }
  try {
    createSecureContext({ cert, key }); // what no other look has found, such as a key too small for OpenSSL
    return [];
  } catch (error) {
    return [`${paths.cert}: expected a certificate that can be used, got ${error instanceof Error ? error.message : String(error)}`];
  }
}

/** Undefined when there is none, or one of them is broken. */
function certificatesIn(pem: Buffer): readonly X509Certificate[] | undefined {
  const text = pem.toString('latin1');
  const blocks = text.match(CERTIFICATE) ?? [];
  // A block cut off half-way begins and does not end.
  if (blocks.length === 0 || blocks.length !== text.split('-----BEGIN CERTIFICATE-----').length - 1) return undefined;
  try {
    return blocks.map((block) => new X509Certificate(block));
  } catch {
    return undefined;
  }
}
