/**
 * What a node looks like to a balancer that knows nothing of slots: it takes every call and serves them
 * one after the other, as a single process behind nginx does. For scheduling.ts: our nodes themselves
 * refuse who comes second.
 */
import { generation } from '#contracts';
import { Channel, Server } from '#grpc';
import { systemClock } from '#runtime';

export interface FifoGate {
  readonly address: string;
  close(): Promise<void>;
}

export async function startFifoGate(nodeAddress: string): Promise<FifoGate> {
  const Service = generation.ImageGenerationServiceService;
  const channel = new Channel(nodeAddress, { clock: systemClock });
  const server = new Server({ clock: systemClock, emit: () => {}, maxRequestBytes: 1 << 20 });
  let tail: Promise<unknown> = Promise.resolve();
  const none = () => Promise.reject(new Error('not part of this bench'));
  server.add(Service, {
    generate: (call) => {
      const answer = tail.then(() => channel.unary(Service.generate, call.request));
      tail = answer.catch(() => {});
      return answer.then(({ response }) => response);
    },
    generateStream: none,
    listModels: none,
  });
  const port = await server.listen('127.0.0.1:0');
  return {
    address: `127.0.0.1:${port}`,
    close: async () => {
      channel.close();
      await server.close();
    },
  };
}
