export { type NatsServer, type NatsServerExit, type NatsServerOptions, startNatsServer } from './nats-server.js';
export { type FindNatsServerOptions, findNatsServer, type NatsServerBinary } from './nats-server-find.js';
