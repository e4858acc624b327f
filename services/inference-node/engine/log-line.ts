/** What does a line of an engine's output say? JSON lines keep their level and fields; other text is a message. */

export interface LogLine {
  readonly level: 'debug' | 'info' | 'warn' | 'error';
  readonly message: string;
  readonly fields: Readonly<Record<string, unknown>>;
}

const LEVELS = ['debug', 'info', 'warn', 'error'] as const;

export function parseLogLine(line: string, stream: 'stdout' | 'stderr'): LogLine {
  const plain: LogLine = { level: stream === 'stderr' ? 'warn' : 'info', message: line, fields: {} };
  if (!line.startsWith('{')) return plain;
  try {
    const {
      level,
      msg,
      message,
      time: _time,
      service: _service,
      node_id: _nodeId,
      ...fields
    } = JSON.parse(line) as Record<string, unknown>;
    const text = msg ?? message;
    return { level: LEVELS.find((known) => known === level) ?? plain.level, message: typeof text === 'string' ? text : '', fields };
  } catch {
    return plain; // text that only looks like JSON
  }
}
