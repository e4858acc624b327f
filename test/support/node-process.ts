/** One inference node as a real process, with an engine that does what the test says. */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { generation, node } from '#contracts';
import { type Answer, type CallOptions, Channel, type Duplex } from '#grpc';
import { Child } from '#local-mesh';
import { packageRoot, systemClock } from '#runtime';

const MAIN = path.join(packageRoot, 'dist/services/inference-node/main.js');
export const SCRIPTABLE_ENGINE = `node ${path.join(packageRoot, 'dist/test/engines/scriptable/main.js')}`;
const Service = generation.ImageGenerationServiceService;
const READY_MS = 40_000;

export interface NodeProcess {
  readonly child: Child;
  readonly channel: Channel;
  /** Locks, sockets, and the engine's marks. */
  readonly dir: string;
  generate(request: Partial<generation.GenerateRequest>, options?: CallOptions): Promise<Answer<generation.GenerateResponse>>;
  generateStream(request: Partial<generation.GenerateRequest>, options?: CallOptions): AsyncIterable<generation.GenerateEvent>;
  attach(routerId: string): RouterStream;
  /** Lines of the log with this message, past and future ones up to now. */
  lines(message: string): Record<string, unknown>[];
  /** Resolves with the line; `count` waits for so many of them. */
  line(message: string, count?: number): Promise<Record<string, unknown>>;
  metric(name: string): Promise<number>;
  enginePids(): number[];
  close(): Promise<void>;
}

export interface RouterStream {
  readonly duplex: Duplex<node.AttachRequest, node.AttachResponse>;
  readonly slots: node.SlotState[];
  readonly grants: node.Grant[];
  readonly served: node.Served[];
  bid(backlogCount: number, ageMs: number): void;
  decline(leaseId: bigint): void;
  /** Resolves, with undefined or the error, when the stream is over. */
  readonly ended: Promise<unknown>;
}

export interface NodeStart {
  readonly env?: Readonly<Record<string, string>>;
  /** Default: one of its own. */
  readonly dir?: string;
  /** Default: waits until the engine is ready. */
  readonly waitForEngine?: boolean;
}

/** Started nodes; `closeAll` ends them, also after a failure. */
const started: (() => Promise<void>)[] = [];

export async function closeAll(): Promise<void> {
  await Promise.all(started.splice(0).map((close) => close()));
}

export async function startNode(options: NodeStart = {}): Promise<NodeProcess> {
  const dir = options.dir ?? (await mkdtemp(path.join(tmpdir(), 'dmesh-n-')));
  const child = new Child({
    id: 'node-under-test',
    command: [process.execPath, MAIN],
    env: {
      ...process.env,
      NATS_URL: 'nats://127.0.0.1:1',
      DMESH_NODE_ID: 'n1',
      DMESH_NODE_STATE_DIR: dir,
      DMESH_NODE_MODEL_DIR: path.join(dir, 'no-model-folder'),
      DMESH_NODE_ENGINE: SCRIPTABLE_ENGINE,
      DMESH_LOG_LEVEL: 'debug',
      DMESH_LOG_FORMAT: 'json',
      SCRIPT_STATE_DIR: path.join(dir, 'engine-marks'),
      SCRIPT_STEP: '5ms',
      ...options.env,
    },
  });
  let channel: Channel | undefined;
  const close = async () => {
    channel?.close();
    await child.stop(10_000);
    await rm(dir, { recursive: true, force: true, maxRetries: 3 });
  };
  started.push(close);
  const { grpc } = await child.waitReady(READY_MS);
  const open = new Channel(grpc, { clock: systemClock });
  channel = open;
  const parsed = () => child.lines.filter((line) => line.startsWith('{')).map((line) => JSON.parse(line) as Record<string, unknown>);
  const lines = (message: string) => parsed().filter((line) => line.msg === message);
  const line = async (message: string, count = 1) => {
    const many = () => lines(message).length >= count;
    await child.waitForLine(many, { timeoutMs: READY_MS, what: `to say "${message}" ${count} times` });
    return lines(message)[count - 1] ?? {};
  };
  if (options.waitForEngine ?? true) await line('engine ready');
  return {
    child,
    channel: open,
    dir,
    generate: (request, callOptions) => open.unary(Service.generate, requestOf(request), callOptions),
    generateStream: (request, callOptions) => open.serverStream(Service.generateStream, requestOf(request), callOptions),
    attach: (routerId) => attach(open, routerId),
    lines,
    line,
    metric: (name) => readMetric(child.http, name),
    enginePids: () => lines('engine started').map(({ pid }) => Number(pid)),
    close,
  };
}

export function requestOf(changes: Partial<generation.GenerateRequest>): generation.GenerateRequest {
  return { ...generation.GenerateRequest.fromPartial({ prompt: 'a red circle', seed: 1n }), ...changes };
}

/** False for a process that is gone or only waits to be reaped. */
export async function isRunning(pid: number): Promise<boolean> {
  try {
    const text = await readFile(`/proc/${pid}/stat`, 'utf8');
    return text.slice(text.lastIndexOf(')') + 2, text.lastIndexOf(')') + 3) !== 'Z';
  } catch {
    return false;
  }
}

function attach(channel: Channel, routerId: string): RouterStream {
  const duplex = channel.duplex(node.InferenceNodeServiceService.attach);
  const slots: node.SlotState[] = [];
  const grants: node.Grant[] = [];
  const served: node.Served[] = [];
  const read = async () => {
    for await (const { message } of duplex.messages) {
      if (message?.$case === 'slots') slots.push(message.value);
      if (message?.$case === 'grant') grants.push(message.value);
      if (message?.$case === 'served') served.push(message.value);
    }
  };
  duplex.send({ message: { $case: 'hello', value: { routerId } } });
  return {
    duplex,
    slots,
    grants,
    served,
    bid: (backlogCount, ageMs) =>
      duplex.send({ message: { $case: 'bid', value: node.Bid.fromPartial({ backlogCount, rank: 2, slackMs: 3000 - ageMs }) } }),
    decline: (leaseId) => duplex.send({ message: { $case: 'decline', value: { leaseId } } }),
    ended: read().catch((error: unknown) => error),
  };
}

async function readMetric(http: string, name: string): Promise<number> {
  const text = await (await fetch(`http://${http}/metrics`)).text();
  const line = text.split('\n').find((one) => one.startsWith(name));
  return line === undefined ? Number.NaN : Number(line.slice(line.lastIndexOf(' ') + 1));
}
