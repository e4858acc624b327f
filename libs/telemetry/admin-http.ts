/**
 * What an operator's tools ask over plain HTTP: /metrics for Prometheus, /healthz (is the process
 * alive?) and /readyz (should it get work, and if not, why?). Nothing here changes anything.
 *
 * It keeps answering while the service drains, so that a load balancer sees "not ready" instead of a
 * refused connection. Slow or idle clients are cut after a few seconds.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Metrics } from './metrics.js';

export type Readiness = { readonly ready: true } | { readonly ready: false; readonly reason: string };

export interface AdminHttpOptions {
  /** "host:port"; port 0 picks one. Default 127.0.0.1:0. */
  readonly listen?: string;
  readonly metrics: Pick<Metrics, 'render' | 'contentType'>;
  /** Asked at every /readyz. */
  readonly readiness: () => Readiness;
  /** A request must be complete, and a connection not idle, within this. Default 5,000. */
  readonly clientPatienceMs?: number;
}

const MAX_CONNECTIONS = 128;

interface Reply {
  readonly status: number;
  readonly type: string;
  readonly body: string;
}

/** A Part of a lifecycle. */
export class AdminHttp {
  readonly name = 'admin-http';
  readonly #options: AdminHttpOptions;
  #server: Server | undefined;
  #address: string | undefined;

  constructor(options: AdminHttpOptions) {
    this.#options = options;
  }

  /** "host:port" as bound. Throws before `start` has resolved. */
  get address(): string {
    if (this.#address === undefined) throw new Error('AdminHttp.address: expected to be started, it is not');
    return this.#address;
  }

  async start(): Promise<void> {
    const { host, port } = parseListen(this.#options.listen ?? '127.0.0.1:0');
    const patienceMs = this.#options.clientPatienceMs ?? 5_000;
    const server = createServer(
      {
        headersTimeout: patienceMs,
        requestTimeout: patienceMs,
        keepAliveTimeout: patienceMs,
        // Node looks for late requests only this often; its default of 30 s would make the limits above moot.
        connectionsCheckingInterval: Math.min(1_000, patienceMs),
        maxHeaderSize: 8 * 1024,
      },
      (request, response) => void this.#answer(request, response),
    );
    server.timeout = patienceMs;
    server.maxConnections = MAX_CONNECTIONS;
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(port, host, () => {
        server.off('error', reject);
        resolve();
      });
    });
    const bound = server.address() as AddressInfo; // a TCP server's address is always one
    this.#address = `${bound.family === 'IPv6' ? `[${bound.address}]` : bound.address}:${bound.port}`;
    this.#server = server;
  }

  async drain(): Promise<void> {}

  async close(): Promise<void> {
    const server = this.#server;
    if (!server) return;
    this.#server = undefined;
    const closed = new Promise<void>((resolve) => server.close(() => resolve()));
    server.closeAllConnections();
    await closed;
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { status, type, body } = await this.#reply(request);
    response.writeHead(status, { 'content-type': type, 'content-length': Buffer.byteLength(body), 'cache-control': 'no-store' });
    response.end(request.method === 'HEAD' ? undefined : body);
    request.resume(); // a body nobody asked for must not block the connection
  }

  async #reply(request: IncomingMessage): Promise<Reply> {
    if (request.method !== 'GET' && request.method !== 'HEAD') return json(405, { error: 'expected GET or HEAD' });
    switch (request.url?.split('?')[0]) {
      case '/metrics':
        try {
          return { status: 200, type: this.#options.metrics.contentType, body: await this.#options.metrics.render() };
        } catch (error) {
          return json(500, { error: `a metric could not be collected: ${String(error)}` });
        }
      case '/healthz':
        return json(200, { alive: true });
      case '/readyz': {
        const readiness = this.#options.readiness();
        return json(readiness.ready ? 200 : 503, readiness);
      }
      default:
        return json(404, { error: 'expected /metrics, /healthz or /readyz' });
    }
  }
}

function json(status: number, body: object): Reply {
  return { status, type: 'application/json', body: `${JSON.stringify(body)}\n` };
}

/** "host:port" or "[v6]:port". Throws a sentence for anything else. */
function parseListen(listen: string): { host: string; port: number } {
  const match = /^(?:\[([^\]]+)\]|([^:]+)):(\d+)$/.exec(listen);
  const host = match?.[1] ?? match?.[2];
  const port = Number(match?.[3]);
  if (host === undefined || port > 65_535) throw new Error(`expected host:port such as 127.0.0.1:9464, got ${JSON.stringify(listen)}`);
  return { host, port };
}
