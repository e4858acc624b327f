export type { ModelInfo } from './model-info.js';
