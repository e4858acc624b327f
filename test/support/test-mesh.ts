/**
 * A mesh of real processes for the tests of one file: NATS, routers and nodes, on the scriptable
 * engine unless told otherwise. It is started before the first test and shared by the others; each
 * test leaves it as it found it, and after each nothing may be held: no lease, no request in flight,
 * no busy slot. A test that fails takes its mesh with it, so that the next one starts on a fresh one.
 */
import path from 'node:path';
import { afterAll, afterEach, beforeEach, expect } from 'vitest';
import { connectMesh, type MeshClient, type NodeInfo } from '#client';
import { type Child, LocalMesh, type LocalMeshOptions } from '#local-mesh';
import { packageRoot } from '#runtime';
import { type Figures, readFigures } from './metrics.js';

export interface TestMeshOptions extends Omit<LocalMeshOptions, 'nodes'> {
  readonly nodes: number;
  /** Default scriptable: 8 steps of 5 ms. */
  readonly kind?: 'scriptable' | 'onnx';
}

const SCRIPTABLE = path.join(packageRoot, 'dist/test/engines/scriptable/main.js');
/** No such folder: the scriptable engine serves its own model. */
const NO_MODEL_DIR = '/no/folder/means/its/own/model';
const QUIET_TIMEOUT_MS = 15_000;

export class TestMesh {
  readonly #clients = new Map<string, MeshClient>();

  private constructor(
    readonly local: LocalMesh,
    private readonly options: TestMeshOptions,
  ) {}

  static async start({ kind = 'scriptable', ...options }: TestMeshOptions): Promise<TestMesh> {
    const scripted = { DMESH_NODE_MODEL_DIR: NO_MODEL_DIR, DMESH_NODE_ENGINE: `node ${path.relative(process.cwd(), SCRIPTABLE)}` };
    const node = { ...(kind === 'scriptable' ? scripted : {}), ...options.env?.node };
    const local = await LocalMesh.start({ graceMs: 10_000, ...options, env: { ...options.env, node } });
    const mesh = new TestMesh(local, options);
    if (options.nodes > 0) for (const router of local.routers) await local.waitForNodes(options.nodes, { router });
    return mesh;
  }

  /** To the first router. */
  get client(): MeshClient {
    return this.connect(this.local.address);
  }

  /** The client of this address; closed with the mesh. */
  connect(address: string): MeshClient {
    const client = this.#clients.get(address) ?? connectMesh({ address, token: this.options.token, tls: this.options.tls });
    this.#clients.set(address, client);
    return client;
  }

  get router(): Child {
    return only(this.local.routers.find((router) => router.running));
  }

  /** The living one of this id. */
  node(id: string): Child {
    return only(this.local.nodes.find((node) => node.id === id && node.running));
  }

  get nodes(): Child[] {
    return this.local.nodes.filter((node) => node.running);
  }

  /** What the first router says of a node. */
  async info(nodeId: string): Promise<NodeInfo> {
    return only((await this.client.listNodes()).find((node) => node.nodeId === nodeId));
  }

  figures(process: Child = this.router): Promise<Figures> {
    return readFigures(process.http);
  }

  /** The process of a node's engine as its log names it, the newest. */
  enginePid(nodeId: string): number {
    const started = this.node(nodeId).lines.filter((line) => line.includes('"engine started"'));
    return Number(JSON.parse(started.at(-1) ?? '{}').pid);
  }

  /** Starts a node or router again that is gone, and waits until it is in the mesh. */
  async revive(gone: Child): Promise<Child> {
    const child = await this.local.restart(gone);
    await this.whole();
    return child;
  }

  /** All nodes are there, attached, ready, and let in by every router. */
  async whole(): Promise<void> {
    for (const router of this.local.routers.filter((child) => child.running)) {
      await this.local.waitForNodes(this.options.nodes, { router, timeoutMs: 20_000 });
    }
  }

  /** Resolves when nothing is held any more; fails when something is never let go. */
  async quiet(): Promise<void> {
    await expect.poll(() => this.held(), { timeout: QUIET_TIMEOUT_MS, interval: 50 }).toEqual({});
  }

  /** Every count that should be zero in a mesh without work, and is not. */
  async held(): Promise<Record<string, number>> {
    const held: Record<string, number> = {};
    const look = async (process: Child, names: readonly string[]) => {
      const figures = await this.figures(process);
      for (const name of names) if (figures.sum(name) !== 0) held[`${process.id} ${name}`] = figures.sum(name);
    };
    const routers = this.local.routers.filter((router) => router.running);
    for (const router of routers) await look(router, ['dmesh_router_running', 'dmesh_router_live_requests', 'dmesh_router_queue_depth']);
    for (const node of this.nodes) await look(node, ['dmesh_node_slot_busy']);
    for (const router of routers) {
      for (const { nodeId, busyCount, connected } of await this.connect(router.grpc).listNodes()) {
        if (connected && busyCount !== 0) held[`${router.id} sees ${nodeId} busy`] = busyCount;
      }
    }
    return held;
  }

  /** What every process said above the level of info, for the report of a failed test. */
  complaints(): string {
    const children = [...this.local.routers, ...this.local.nodes, ...this.local.jobs];
    return children
      .flatMap((child) => child.lines.filter((line) => !/"level":"(info|debug)"/.test(line)).map((line) => `${child.id}: ${line}`))
      .join('\n');
  }

  async stop(): Promise<void> {
    for (const client of this.#clients.values()) client.close();
    await this.local.stop();
  }
}

/**
 * Call at the top of a test file; the function returned gives the mesh to its tests. A function in place of the options
 * is asked for each mesh: what one leaves on disk is then nothing to the next.
 */
export function useMesh(options: TestMeshOptions | (() => TestMeshOptions)): () => TestMesh {
  let mesh: TestMesh | undefined;
  const drop = async () => {
    await mesh?.stop();
    mesh = undefined;
  };
  beforeEach(async () => {
    mesh ??= await TestMesh.start(typeof options === 'function' ? options() : options);
  });
  afterEach(async ({ task }) => {
    try {
      if (task.result?.state === 'fail') throw new Error('the test failed');
      await mesh?.quiet();
    } catch (reason) {
      process.stderr.write(`${mesh?.complaints()}\n`);
      await drop();
      if (task.result?.state !== 'fail') throw reason;
    }
  });
  afterAll(drop);
  return () => only(mesh);
}

export function only<T>(value: T | undefined): T {
  if (value === undefined) throw new Error('expected one, found none');
  return value;
}
