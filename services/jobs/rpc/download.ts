/** Download: a picture in pieces, checked before the first of them; a broken one goes on from an offset. */
import type { jobs } from '#contracts';
import { badRequest, Code, Reason, StatusError } from '#core';
import type { ServerStreamHandler } from '#grpc';
import { noResult } from '../refusals.js';
import type { RpcParts } from './parts.js';

export function download({ blobs, callers, reader }: RpcParts): ServerStreamHandler<jobs.DownloadRequest, jobs.DownloadResponse> {
  return async (call, out) => {
    const { tenant } = await callers.known(call);
    const { imageIndex, jobId, offset: from } = call.request;
    call.notes.job_id = jobId.slice(0, 64);
    const { state } = (await reader.perhapsSucceeded(tenant, jobId)).job;
    if (state.kind !== 'succeeded') throw noResult(jobId, state.kind);
    const { images } = state.result;
    const image = images[imageIndex];
    if (!image) throw noSuchImage(imageIndex, images.length);
    const { blob, mimeType, sha256 } = image;
    try {
      for await (const { data, offset, totalBytes } of blobs.readFrom(blob, Number(from), call.signal)) {
        const piece = Buffer.from(data.buffer, data.byteOffset, data.length);
        await out.write({ data: piece, offset: BigInt(offset), totalBytes: BigInt(totalBytes), mimeType, sha256 });
      }
    } catch (thrown) {
      // Nothing is lost when the job was deleted meanwhile: then this throws that there is none.
      if (StatusError.from(thrown).reason === Reason.RESULT_MISSING) await reader.job(tenant, jobId);
      throw thrown;
    }
  };
}

function noSuchImage(asked: number, count: number): StatusError {
  const { details, message } = badRequest([{ field: 'image_index', description: `expected 0 to ${count - 1}, got ${asked}` }]);
  return new StatusError({ code: Code.OUT_OF_RANGE, reason: Reason.BAD_REQUEST, message, ...details });
}
