/** Which tensor lies where in a safetensors file: eight bytes of header length, a JSON header, then the values. */

export interface TensorEntry {
  /** Such as F32. */
  readonly dtype: string;
  readonly shape: readonly number[];
  /** Byte positions in the file. */
  readonly start: number;
  readonly end: number;
}

const LENGTH_BYTES = 8;

/** Throws RangeError or SyntaxError on bytes that are no such file. */
export function readTensors(file: Uint8Array): Map<string, TensorEntry> {
  if (file.length < LENGTH_BYTES) throw new RangeError(`expected a safetensors file, got ${file.length} bytes`);
  const headerBytes = Number(new DataView(file.buffer, file.byteOffset, LENGTH_BYTES).getBigUint64(0, true));
  const dataStart = LENGTH_BYTES + headerBytes;
  if (dataStart > file.length) throw new RangeError(`expected a header of ${headerBytes} bytes, got a file of ${file.length}`);
  const header: unknown = JSON.parse(new TextDecoder().decode(file.subarray(LENGTH_BYTES, dataStart)));
  const entries = new Map<string, TensorEntry>();
  for (const [name, value] of Object.entries(header ?? {})) {
    if (name !== '__metadata__') entries.set(name, readEntry(name, value, { dataStart, fileBytes: file.length }));
  }
  return entries;
}

function readEntry(name: string, value: unknown, file: { dataStart: number; fileBytes: number }): TensorEntry {
  const { dtype, shape, data_offsets: offsets } = value as { dtype?: unknown; shape?: unknown; data_offsets?: unknown };
  if (typeof dtype !== 'string' || !isNaturals(shape) || !isNaturals(offsets) || offsets.length !== 2) {
    throw new RangeError(`${name}: expected dtype, shape and data_offsets`);
  }
  const [from = 0, to = 0] = offsets;
  const entry = { dtype, shape, start: file.dataStart + from, end: file.dataStart + to };
  if (entry.start > entry.end || entry.end > file.fileBytes) throw new RangeError(`${name}: its data lies outside the file`);
  return entry;
}

function isNaturals(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((item) => Number.isSafeInteger(item) && item >= 0);
}
