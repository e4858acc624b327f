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
  try {
    return text.split(',').map((part) => parseServer(part.trim()));
  } catch (cause) {
    const shown = JSON.stringify(withoutSecrets(text));
    throw new RangeError(`NATS_URL: expected nats://host:4222 or tls://host:4222, got ${shown}`, { cause });
  }
}

/** The servers for a log: users, passwords and tokens are stars. Never throws. */
export function shownUrl(text: string): string {
  try {
    return parseServers(text).map(shownServer).join(',');
  } catch {
    return withoutSecrets(text);
  }
}

/** host:port, for logs and events. */
export function serverName(server: ServerAddress): string {
  return `${server.host.includes(':') ? `[${server.host}]` : server.host}:${server.port}`;
}

function shownServer(server: ServerAddress): string {
  return `${server.tls ? 'tls' : 'nats'}://${server.user === undefined ? '' : '***@'}${serverName(server)}`;
}

/** Of a text that is no list of servers: nobody knows where in it a password ends, so all before the last @ goes. */
function withoutSecrets(text: string): string {
  const hostStart = text.lastIndexOf('@');
  return hostStart < 0 ? text : `***${text.slice(hostStart)}`;
}

function parseServer(text: string): ServerAddress {
  // URL knows host rules and brackets only for schemes it knows; http behaves like nats.
  const [, scheme = 'nats', rest = ''] = /^(?:([^:]*):\/\/)?(.*)$/.exec(text) ?? [];
  if (scheme !== 'nats' && scheme !== 'tls') throw new RangeError('scheme');
  const url = new URL(`http://${rest}`);
  if ((url.pathname !== '/' && url.pathname !== '') || url.search !== '' || url.hash !== '') throw new RangeError('path');
  const port = /:(\d+)$/.exec(rest.slice(rest.lastIndexOf('@') + 1))?.[1]; // URL hides port 80
  return {
    host: url.hostname.replace(/^\[|\]$/g, ''),
    port: port === undefined ? DEFAULT_PORT : Number(port),
    tls: scheme === 'tls',
    ...(url.username === '' ? {} : { user: decodeURIComponent(url.username), password: decodeURIComponent(url.password) }),
  };
}
