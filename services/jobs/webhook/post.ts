/**
 * One POST over HTTP to one of the addresses given, and to no other: the name is not resolved again, redirects
 * are not followed, no proxy of the environment is asked, certificates are checked whatever the environment says.
 * Of the answer only its status counts; a little of the rest is read, so that the receiver sees a clean end.
 */
import http from 'node:http';
import https from 'node:https';
import { isIP, type LookupFunction, type TcpSocketConnectOpts } from 'node:net';

export interface PostOptions {
  readonly url: URL;
  /** Where to connect, tried in turn. */
  readonly addresses: readonly string[];
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
  /** Ends it with the signal's reason, unless the status is there already. */
  readonly signal: AbortSignal;
  /** Called once there is a connection, its TLS included. */
  readonly onConnected: () => void;
}

/** More of an answer is cut off; nobody reads it. */
const MAX_ANSWER_BYTES = 64 * 1024;
/** Then the next address is asked; Node's own 250 ms are too short for the other side of the world. */
const ADDRESS_TIMEOUT_MS = 1500;
/** Node's own default, whatever NODE_OPTIONS says. */
const MAX_HEADER_BYTES = 16 * 1024;

/** Resolves with the status; rejects with what came instead. */
export function post({ url, addresses, headers, body, signal, onConnected }: PostOptions): Promise<number> {
  return new Promise((resolve, reject) => {
    signal.throwIfAborted();
    const secure = url.protocol === 'https:';
    const payload = Buffer.from(body);
    // Passed on to net.connect, whatever the types say.
    const options: https.RequestOptions & Pick<TcpSocketConnectOpts, 'autoSelectFamilyAttemptTimeout'> = {
      method: 'POST',
      headers: { ...headers, 'content-length': payload.length },
      agent: false, // a connection of its own: the addresses are looked at for each
      lookup: only(addresses),
      autoSelectFamilyAttemptTimeout: ADDRESS_TIMEOUT_MS,
      maxHeaderSize: MAX_HEADER_BYTES,
      rejectUnauthorized: true,
    };
    const request = (secure ? https : http).request(url, options);
    let status: number | undefined;
    let failure: unknown;
    const stop = () => request.destroy(signal.reason);
    signal.addEventListener('abort', stop, { once: true });
    request.on('socket', (socket) => socket.once(secure ? 'secureConnect' : 'connect', onConnected));
    request.on('response', (response) => {
      status = response.statusCode;
      let byteCount = 0;
      response.on('data', (chunk: Buffer) => {
        byteCount += chunk.length;
        if (byteCount > MAX_ANSWER_BYTES) request.destroy();
      });
      response.on('error', () => {}); // cut off, by them or by us: the status counts
    });
    request.on('error', (error) => {
      failure ??= error;
    });
    request.on('close', () => {
      signal.removeEventListener('abort', stop);
      if (status !== undefined) resolve(status);
      else reject(failure ?? new Error('closed without an answer'));
    });
    request.end(payload);
  });
}

/** A lookup that knows one answer. */
function only(addresses: readonly string[]): LookupFunction {
  const found = addresses.map((address) => ({ address, family: isIP(address) }));
  return (_host, options, callback) => {
    const [first] = found;
    if (first && !options.all) callback(null, first.address, first.family);
    else callback(null, found);
  };
}
