export type { Beat, EngineReport, GpuReport, RunningReport } from './beat.js';
