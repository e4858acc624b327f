export { type Addresses, Child, type Exit, type Line } from './child.js';
export { detectGpus, type LocalGpu } from './gpus.js';
export { LocalMesh, type LocalMeshOptions } from './local-mesh.js';
export { type NatsServer, type NatsServerExit, type NatsServerOptions, startNatsServer } from './nats-server.js';
export { type FindNatsServerOptions, findNatsServer, type NatsServerBinary } from './nats-server-find.js';
