/**
 * What may one request cost to decode? Bytes are no measure of it: an empty message in a list takes two of them and a
 * whole object here, so that 16 MiB of them hold the event loop, and with it everybody, for seconds. So fields are
 * counted while they are read.
 */
import { BinaryReader } from '@bufbuild/protobuf/wire';
import { Code, Reason, StatusError } from '#core';

/** A batch of 1,000 jobs has room for fifty fields in each, of two numbers (tag and length). To read as many takes some 5 ms. */
const MAX_NUMBER_COUNT = 100_000;

/** Its reads throw INVALID_ARGUMENT when more is read than any request needs. */
export function boundedReader(bytes: Uint8Array): BinaryReader {
  const reader = new BinaryReader(bytes);
  const read = reader.uint32;
  let leftCount = MAX_NUMBER_COUNT;
  // Every tag and every length comes through here, and what is packed.
  reader.uint32 = () => {
    if (leftCount-- > 0) return read.call(reader);
    throw new StatusError({
      code: Code.INVALID_ARGUMENT,
      reason: Reason.BAD_REQUEST,
      message: `expected a message of at most ${MAX_NUMBER_COUNT} tags and lengths, got more in ${bytes.length} bytes`,
    });
  };
  return reader;
}
