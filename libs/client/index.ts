export { Code, Reason, StatusError, StatusError as MeshError } from '#core';
export { ImageAssembler, type MeshImage } from './assemble.js';
export {
  type CallSettings,
  type ConnectOptions,
  connectMesh,
  type Generated,
  type GenerateOptions,
  isReady,
  MeshClient,
} from './client.js';
export type { Progress } from './progress.js';
export type { PictureRequest } from './request.js';
export type { MeshSnapshot, Model, NodeInfo, Route, UsedParameters } from './types.js';
