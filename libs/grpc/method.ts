/** One RPC, seen from either side of the wire. */
import { Code, Reason, StatusError } from '#core';
import { boundedReader } from './bounded-reader.js';
import { Pieces } from './pieces.js';

/** What ts-proto generates for each method of a service. */
export interface Method<Req, Res> {
  readonly path: string;
  readonly requestStream: boolean;
  readonly responseStream: boolean;
  readonly requestSerialize: (value: Req) => Buffer;
  readonly requestDeserialize: (value: Buffer) => Req;
  readonly responseSerialize: (value: Res) => Buffer;
  readonly responseDeserialize: (value: Buffer) => Res;
}

/** A call as a handler sees it. */
export interface Call<Req> {
  /** "/package.Service/Method" */
  readonly method: string;
  readonly request: Req;
  /** Text entries only; keys in lower case. */
  readonly metadata: Readonly<Record<string, string>>;
  /** When the caller stops waiting, in clock milliseconds. Infinity: never. */
  readonly deadlineAt: number;
  /** Aborts with a StatusError when the caller leaves, its deadline passes, or the server is cut off. */
  readonly signal: AbortSignal;
  /** Address of the caller. */
  readonly peer: string;
  /** Sent with the status; a handler may fill it until it returns. */
  readonly trailers: Record<string, string>;
  /** Fields for the line that reports this call's end; a handler may fill it. */
  readonly notes: Record<string, string | number>;
}

/** A message that is serialised already and passes untouched. */
export type Serialised = Buffer | Pieces;

export interface Writer<Res> {
  /** Resolves when the peer has room for more. Rejects when the call is over. */
  write(message: Res | Serialised): Promise<void>;
}

export type UnaryHandler<Req, Res> = (call: Call<Req>) => Promise<Res | Serialised>;
export type ServerStreamHandler<Req, Res> = (call: Call<Req>, out: Writer<Res>) => Promise<void>;
export type DuplexHandler<Req, Res> = (call: Call<AsyncIterable<Req>>, out: Writer<Res>) => Promise<void>;

type RequestOf<M> = M extends { requestDeserialize: (value: Buffer) => infer Req } ? Req : never;
type ResponseOf<M> = M extends { responseDeserialize: (value: Buffer) => infer Res } ? Res : never;

/** The handler a generated method definition asks for. */
export type HandlerOf<M> = M extends { requestStream: false; responseStream: false }
  ? UnaryHandler<RequestOf<M>, ResponseOf<M>>
  : M extends { requestStream: false; responseStream: true }
    ? ServerStreamHandler<RequestOf<M>, ResponseOf<M>>
    : M extends { requestStream: true; responseStream: true }
      ? DuplexHandler<RequestOf<M>, ResponseOf<M>>
      : never;

export type HandlersOf<Service> = { readonly [Name in keyof Service]: HandlerOf<Service[Name]> };

/** A service whose requests its handlers see as the bytes that came, to pass them on. */
export type AsBytes<Service> = {
  readonly [Name in keyof Service]: Omit<Service[Name], 'requestSerialize' | 'requestDeserialize'> & {
    readonly requestSerialize: (bytes: Buffer) => Buffer;
    readonly requestDeserialize: (bytes: Buffer) => Buffer;
  };
};

export function asBytes<Service extends Readonly<Record<string, object>>>(service: Service): AsBytes<Service> {
  const entries = Object.entries(service).map(([name, method]) => [name, { ...method, requestSerialize: same, requestDeserialize: same }]);
  return Object.fromEntries(entries) as AsBytes<Service>;
}

function same(bytes: Buffer): Buffer {
  return bytes;
}

/** For grpc-js: what is serialised already passes as it is. */
export function serializer<T>(encode: (value: T) => Buffer): (value: T | Serialised) => Buffer {
  // Pieces are all of a Buffer that grpc-js uses; pieces.test.ts holds it to that.
  return (value) => (Buffer.isBuffer(value) || value instanceof Pieces ? (value as Buffer) : encode(value));
}

export function decodeRequest<Req>(method: Pick<Method<Req, never>, 'path' | 'requestDeserialize'>, bytes: Buffer): Req {
  const passes: unknown = method.requestDeserialize;
  try {
    // What ts-proto generates takes a reader where it says Buffer.
    return method.requestDeserialize(passes === same ? bytes : (boundedReader(bytes) as unknown as Buffer));
  } catch (cause) {
    if (cause instanceof StatusError) throw cause;
    throw new StatusError({
      code: Code.INVALID_ARGUMENT,
      reason: Reason.BAD_REQUEST,
      message: `expected a protobuf message for ${method.path}, got ${bytes.length} bytes that are none`,
      cause,
    });
  }
}
