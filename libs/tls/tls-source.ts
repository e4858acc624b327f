/**
 * The certificates of a service, as their files change. New connections, in both directions, take what
 * the files hold then; connections that are open go on with what they were opened with. Files that cannot
 * be used are reported, and the last good ones hold.
 */
import { createSecureContext, type SecureContext } from 'node:tls';
import type { Clock, Emit } from '#core';
import { FollowedFiles } from '#runtime';
import type { ClientTls } from './connect.js';
import type { TlsEvent } from './events.js';
import { checkMaterial, listPaths, MAX_PEM_BYTES, type TlsMaterial, type TlsPaths } from './material.js';

/** What a server needs to speak TLS. */
export interface ServerTls {
  readonly material: () => { readonly cert: Buffer; readonly key: Buffer; readonly ca?: Buffer };
  /** Callers must show a certificate that `ca` vouches for. */
  readonly mutual: boolean;
  readonly onChange: (listener: () => void) => void;
}

export interface TlsSourceOptions {
  readonly paths: TlsPaths;
  readonly clock: Clock;
  readonly emit: Emit<TlsEvent>;
}

export class TlsSource {
  readonly #options: TlsSourceOptions;
  /** Undefined without any: TLS is off. */
  readonly #files: FollowedFiles | undefined;
  readonly #listeners = new Set<() => void>();
  #material: TlsMaterial = {};
  #context: SecureContext | undefined;

  constructor(options: TlsSourceOptions) {
    this.#options = options;
    const { clock, emit } = options;
    const listed = listPaths(options.paths);
    const paths = listed.map(({ path }) => path);
    if (paths.length === 0) return;
    this.#files = new FollowedFiles({
      paths,
      clock,
      maxBytes: MAX_PEM_BYTES,
      take: (contents) => this.#take(Object.fromEntries(listed.map(({ file }, index) => [file, contents[index]]))),
      onRejected: (faults) => emit({ type: 'tlsRejected', paths, faults }),
    });
  }

  /** Reads the files and follows them. Rejects with a ConfigError when they cannot be used. */
  async start(): Promise<void> {
    await this.#files?.start();
  }

  close(): void {
    this.#files?.close();
  }

  /** For calls to others: trusts `ca` (without one, the CAs that Node knows) and shows `cert`. */
  client(options: { readonly serverName?: string | undefined } = {}): ClientTls {
    return { ...options, context: () => this.#clientContext() };
  }

  /** For those who call; `callers` says whose certificates they must show: those of which CA, of either, or none. */
  server(callers: 'ca' | 'callerCa' | 'either' | undefined): ServerTls {
    return {
      mutual: callers !== undefined,
      material: () => {
        const { cert, key } = this.#material;
        const ca = callers && this.#casOf(callers);
        if (!cert || !key) throw new Error('expected certificate and key to be read before a server starts');
        return { cert, key, ...(ca ? { ca } : {}) };
      },
      onChange: (listener) => void this.#listeners.add(listener),
    };
  }

  #casOf(callers: 'ca' | 'callerCa' | 'either'): Buffer | undefined {
    const { ca, callerCa } = this.#material;
    if (callers !== 'either') return this.#material[callers];
    return ca && callerCa ? Buffer.concat([callerCa, Buffer.from('\n'), ca]) : (callerCa ?? ca);
  }

  #clientContext(): SecureContext {
    const { cert, key, ca } = this.#material;
    this.#context ??= createSecureContext({ ...(cert && key ? { cert, key } : {}), ...(ca ? { ca } : {}) });
    return this.#context;
  }

  #take(material: TlsMaterial): readonly string[] {
    const { paths, emit } = this.#options;
    const checked = checkMaterial(paths, material);
    if (!checked.ok) return checked.faults;
    this.#material = material;
    this.#context = undefined;
    for (const listener of this.#listeners) listener();
    emit({ type: 'tlsLoaded', paths: listPaths(paths).map(({ path }) => path), expiries: checked.expiries });
    return [];
  }
}
