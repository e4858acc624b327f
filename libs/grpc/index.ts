export { type Answer, type CallOptions, Channel, type ChannelOptions, type Duplex } from './channel.js';
export { addHealth, type HealthOptions } from './health.js';
export {
  type AsBytes,
  asBytes,
  type Call,
  type DuplexHandler,
  type HandlersOf,
  type Method,
  type Serialised,
  type ServerStreamHandler,
  type UnaryHandler,
  type Writer,
} from './method.js';
export { lengthDelimited, Pieces } from './pieces.js';
export { addReflection } from './reflection.js';
export { type CallEnded, Server, type ServerOptions } from './server.js';
export { ERROR_DOMAIN, statusFromGrpc } from './status.js';
