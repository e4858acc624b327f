export { type ClientTlsPaths, clientTlsFromFiles } from './client-files.js';
export { readTlsPaths } from './config.js';
export { type ClientTls, hostOf, peerOptions, secured } from './connect.js';
export type { TlsEvent } from './events.js';
export { explainTlsFailure } from './explain.js';
export type { TlsPaths } from './material.js';
export { type ServerTls, TlsSource } from './tls-source.js';
