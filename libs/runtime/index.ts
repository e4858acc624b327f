export { systemClock, systemRandom } from './clock.js';
export { ConfigError, describeSettings, type Env, EnvReader, parseDurationMs, type Setting } from './env.js';
export { FollowedFiles, type FollowedFilesOptions } from './followed-files.js';
export { expectLargeBuffers } from './large-buffers.js';
export { Lifecycle, type Part, type Phase, part } from './lifecycle.js';
export { packageRoot } from './package-root.js';
export { watchParent } from './parent.js';
export { type Host, type Program, processHost, runProgram } from './run.js';
export { thisProcess } from './this-process.js';
