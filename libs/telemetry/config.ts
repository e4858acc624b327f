/** The two settings every service has; read through that service's own reader, so --help lists them. */
import type { EnvReader } from '#runtime';
import type { LogFormat, LogLevel } from './logger.js';

export interface TelemetryConfig {
  readonly level: LogLevel;
  readonly format: LogFormat;
}

/** `terminal`: whether stdout is one; `auto` then means pretty. */
export function readTelemetryConfig(read: Pick<EnvReader, 'choice'>, options: { terminal: boolean }): TelemetryConfig {
  const level = read.choice('DMESH_LOG_LEVEL', 'info', ['debug', 'info', 'warn', 'error'], 'The least important lines that are written.');
  const format = read.choice('DMESH_LOG_FORMAT', 'auto', ['auto', 'json', 'pretty'], 'auto: pretty on a terminal, JSON lines elsewhere.');
  return { level, format: format === 'auto' ? (options.terminal ? 'pretty' : 'json') : format };
}
