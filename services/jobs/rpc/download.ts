/** Download: a picture in pieces, checked before the first of them; a broken one goes on from an offset. */
import type { jobs } from '#contracts';
import { badRequest, Code, Reason, StatusError } from '#core';
import type { ServerStreamHandler } from '#grpc';
import type { StoredImage } from '../domain/job.js';
import { noResult } from '../refusals.js';
import type { StoredJob } from '../store/job-records.js';
import type { RpcParts } from './parts.js';

export function download({ blobs, callers, reader }: RpcParts): ServerStreamHandler<jobs.DownloadRequest, jobs.DownloadResponse> {
  return async (call, out) => {
    const { tenant } = await callers.known(call);
    const { imageIndex, jobId, offset: from } = call.request;
    call.notes.job_id = jobId.slice(0, 64);
    const send = async (stored: StoredJob) => {
      const { blob, mimeType, sha256 } = imageOf(stored, imageIndex);
      for await (const { data, offset, totalBytes } of blobs.readFrom(blob, Number(from), call.signal)) {
        const piece = Buffer.from(data.buffer, data.byteOffset, data.length);
        await out.write({ data: piece, offset: BigInt(offset), totalBytes: BigInt(totalBytes), mimeType, sha256 });
      }
    };
    const stored = await reader.jobForDownload(tenant, jobId);
    try {
      await send(stored);
    } catch (thrown) {
      if (StatusError.from(thrown).reason !== Reason.RESULT_MISSING) throw thrown;
      // Deleted meanwhile, then nothing is lost; and perhaps submitted again, then it is another job.
      const now = await reader.job(tenant, jobId);
      if (now.job.uid === stored.job.uid) throw thrown;
      await send(now);
    }
  };
}

function imageOf({ job: { jobId, state } }: StoredJob, index: number): StoredImage {
  if (state.kind !== 'succeeded') throw noResult(jobId, state.kind);
  const { images } = state.result;
  const image = images[index];
  if (image) return image;
  const { details, message } = badRequest([{ field: 'image_index', description: `expected 0 to ${images.length - 1}, got ${index}` }]);
  throw new StatusError({ code: Code.OUT_OF_RANGE, reason: Reason.BAD_REQUEST, message, ...details });
}
