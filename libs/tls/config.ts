/**
 * Which files hold the certificates of a service? The same three names for every service: what it shows,
 * and the CA of the mesh, whose certificates routers, nodes and NATS show each other.
 */
import type { EnvReader } from '#runtime';
import type { TlsPaths } from './material.js';

/** Without `cert` there is no TLS. */
export function readTlsPaths(read: Pick<EnvReader, 'optionalString' | 'fault' | 'claim'>): TlsPaths {
  read.claim('DMESH_TLS_');
  const paths = {
    cert: read.optionalString('DMESH_TLS_CERT', 'PEM file of the certificate to show, with its chain; none: no TLS.'),
    key: read.optionalString('DMESH_TLS_KEY', 'PEM file of its key, without a passphrase.'),
    ca: read.optionalString('DMESH_TLS_CA', 'PEM file of the CA of the mesh: routers, nodes and NATS show each other its certificates.'),
  };
  if ((paths.cert === undefined) !== (paths.key === undefined)) {
    read.fault('DMESH_TLS_CERT: expected together with DMESH_TLS_KEY, got one of them');
  } else if (paths.ca !== undefined && paths.cert === undefined) {
    read.fault('DMESH_TLS_CA: expected together with DMESH_TLS_CERT and DMESH_TLS_KEY, got it alone');
  }
  return paths;
}
