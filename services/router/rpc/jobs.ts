/**
 * JobsService on a router: every call goes on to a replica of the jobs service, and requests and answers
 * pass as the bytes that came. The router only looks whether the token is one of the mesh; the replica judges
 * the rest, so both always agree with the contract the replica has.
 *
 * What may be asked of a second replica when the first was lost on the way:
 * Get, List, GetBatch change nothing. Submit and SubmitBatch with an id of the caller's are the same job
 * whenever they come; without one a second would be made up. Cancel finds the job cancelled. Not Retry: the
 * job may have run and failed again by then, and would run once more. Not Delete: the second answer would be
 * NOT_FOUND for a job that this very call has deleted. Watch and Download are resumed by their callers, who
 * know how far they came.
 */
import { jobs } from '#contracts';
import { type AsBytes, asBytes, type HandlersOf, type Pieces, type ServerStreamHandler, type UnaryHandler } from '#grpc';
import type { JobsReplicas } from '../jobs-replicas.js';

export const Jobs: AsBytes<typeof jobs.JobsServiceService> = asBytes(jobs.JobsServiceService);

/** What is needed of a method to pass its calls on. */
type Passed = Pick<typeof Jobs.get, 'requestSerialize'> & { readonly path: string };

const always = () => true;
const never = () => false;

export function jobsHandlers(replicas: JobsReplicas): HandlersOf<typeof Jobs> {
  const unary = (method: Passed, mayRepeat: (request: Buffer) => boolean): UnaryHandler<Buffer, never> => {
    return async (call) => {
      const { response, trailers } = await replicas.passOn(call, {
        mayRepeat: () => mayRepeat(call.request),
        ask: (channel, options) => channel.unaryRaw(method, call.request, options),
      });
      Object.assign(call.trailers, trailers);
      return response;
    };
  };
  const stream = (method: Passed): ServerStreamHandler<Buffer, never> => {
    return async (call, out) => {
      const messages = await replicas.passOn(call, {
        mayRepeat: always, // nothing was told yet
        ask: async (channel, options) => begun(channel.serverStreamRaw(method, call.request, options)),
      });
      for await (const message of messages) await out.write(message);
    };
  };
  return {
    submit: unary(Jobs.submit, (request) => jobs.SubmitRequest.decode(request).jobId !== ''),
    submitBatch: unary(Jobs.submitBatch, (request) => jobs.SubmitBatchRequest.decode(request).batchId !== ''),
    get: unary(Jobs.get, always),
    list: unary(Jobs.list, always),
    getBatch: unary(Jobs.getBatch, always),
    watch: stream(Jobs.watch),
    cancel: unary(Jobs.cancel, always),
    retry: unary(Jobs.retry, never),
    delete: unary(Jobs.delete, never),
    download: stream(Jobs.download),
  };
}

/** Waits for the first message, so that a replica which fails before it can be passed over. */
async function begun(messages: AsyncIterable<Pieces>): Promise<AsyncIterable<Pieces>> {
  const iterator = messages[Symbol.asyncIterator]();
  const first = await iterator.next();
  return {
    async *[Symbol.asyncIterator]() {
      try {
        for (let next = first; !next.done; next = await iterator.next()) yield next.value;
      } finally {
        await iterator.return?.();
      }
    },
  };
}
