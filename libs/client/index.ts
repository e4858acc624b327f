export { Code, Reason, StatusError, StatusError as MeshError } from '#core';
export { ImageAssembler, type MeshImage } from './assemble.js';
export type { CallSettings, ConnectOptions } from './caller.js';
export {
  connectMesh,
  type Generated,
  type GenerateOptions,
  isReady,
  MeshClient,
} from './client.js';
export {
  hasEnded,
  type JobFilter,
  type JobSettings,
  JobsClient,
  type StoredPicture,
  type SubmittedBatch,
  type SubmittedJob,
} from './jobs.js';
export type { Progress } from './progress.js';
export type { PictureRequest } from './request.js';
export type { Batch, Job, MeshSnapshot, Model, NodeInfo, Route, UsedParameters } from './types.js';
export { JobState } from './types.js';
