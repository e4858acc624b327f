export { LATENT_CHANNELS, type LatentShape, latentShape, PIXELS_PER_LATENT } from './latent-shape.js';
export { modelInfoOf, modelMessage } from './message.js';
export { modelFaults } from './model-faults.js';
export { fullName, type ModelInfo } from './model-info.js';
export { type ModelPackage, modelUnusable, readModelPackage } from './read.js';
export { isRequestId, MAX_PROMPT_BYTES, type RequestFields, type Resolution, type ResolvedRequest, resolveRequest } from './resolve.js';
