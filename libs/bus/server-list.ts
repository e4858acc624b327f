/** Which NATS servers does NATS_URL name? One or several, separated by commas; each may carry a user and password. */

const DEFAULT_PORT = 4222;

export interface ServerAddress {
  readonly host: string;
  readonly port: number;
  readonly tls: boolean;
  readonly user?: string;
  readonly password?: string;
}

/** Throws a RangeError that says what was expected; passwords are not repeated. */
export function parseServers(text: string): readonly ServerAddress[] {
  return text.split(',').map((part) => parseServer(part.trim()));
}

/** host:port, for logs and events. */
export function serverName(server: ServerAddress): string {
  return `${server.host.includes(':') ? `[${server.host}]` : server.host}:${server.port}`;
}

function parseServer(text: string): ServerAddress {
  let url: URL;
  try {
    // URL knows host rules and brackets only for schemes it knows; http behaves like nats.
    const [scheme, rest] = text.includes('://') ? text.split('://', 2) : ['nats', text];
    if (scheme !== 'nats' && scheme !== 'tls') throw new RangeError(scheme);
    url = new URL(`http://${rest}`);
    if ((url.pathname !== '/' && url.pathname !== '') || url.search !== '') throw new RangeError('path');
    const port = /:(\d+)$/.exec(rest?.slice(rest.lastIndexOf('@') + 1) ?? '')?.[1]; // URL hides port 80
    return {
      host: url.hostname.replace(/^\[|\]$/g, ''),
      port: port === undefined ? DEFAULT_PORT : Number(port),
      tls: scheme === 'tls',
      ...(url.username === '' ? {} : { user: decodeURIComponent(url.username), password: decodeURIComponent(url.password) }),
    };
  } catch (cause) {
    const shown = text.replace(/\/\/[^@/]*@/, '//***@');
    throw new RangeError(`NATS URL: expected nats://host:4222 or tls://host:4222, got ${JSON.stringify(shown)}`, { cause });
  }
}
