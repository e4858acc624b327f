/**
 * A whole mesh on one machine: NATS, routers, nodes and jobs replicas as the processes they are in production, on
 * free loopback ports, started from the built files. `dmesh up`, `dmesh demo` and the tests use it.
 *
 * It is about real processes and runs on the real clock; what can be tested without processes does
 * not belong here.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { connectMesh, isReady } from '#client';
import { Code, StatusError } from '#core';
import { type Env, packageRoot, thisProcess } from '#runtime';
import type { ClientTlsPaths } from '#tls';
import { Child, type Line } from './child.js';
import { type FolderLock, lockFolder } from './folder-lock.js';
import type { LocalGpu } from './gpus.js';
import { type NatsServer, startNatsServer } from './nats-server.js';
import { findNatsServer } from './nats-server-find.js';

export interface LocalMeshOptions {
  /** How many nodes on the CPU, or the GPUs that get one node each. */
  readonly nodes: number | readonly LocalGpu[];
  /** Default 1. */
  readonly routerCount?: number;
  /** Replicas of the jobs service; default 0. */
  readonly jobsCount?: number;
  /** Folder that outlives the mesh and is found again by the next one, one at a time: NATS's store and the pictures of jobs. Default: none. */
  readonly keepDir?: string | undefined;
  /** host:port of the first router; default a free port. Further routers get free ports. */
  readonly routerListen?: string;
  /** Shown to routers where they want a token, of an administrator, to be asked who is ready. */
  readonly token?: string | undefined;
  /** How to call routers that speak TLS. */
  readonly tls?: ClientTlsPaths | undefined;
  /** Uses this NATS instead of starting one. */
  readonly natsUrl?: string | undefined;
  /** DMESH_NODE_ENGINE of every node; default the node's own. */
  readonly engine?: string;
  /** Settings on top of this process's environment and of what the mesh sets itself. */
  readonly env?: { readonly router?: Env; readonly node?: Env; readonly jobs?: Env };
  /** Hears every line of every process. */
  readonly onLine?: ((line: Line) => void) | undefined;
  /** How long a process may take to be ready; default 60 s. */
  readonly readyTimeoutMs?: number;
  /** How long a process may drain before it is killed; default 40 s. */
  readonly graceMs?: number;
  /** Gives up starting; a mesh that runs is stopped with stop(). */
  readonly signal?: AbortSignal;
  /** The main files to run; default the built services. */
  readonly programs?: Partial<Programs>;
}

type Kind = 'router' | 'node' | 'jobs';
type Programs = Readonly<Record<Kind, string>>;

const ENV_PREFIX: Readonly<Record<Kind, string>> = { router: 'DMESH_ROUTER_', node: 'DMESH_NODE_', jobs: 'DMESH_JOBS_' };

/** A child that can be started again as it was, under the same id and on the same ports. */
interface Launch {
  readonly kind: Kind;
  readonly id: string;
  readonly command: readonly [string, ...string[]];
  readonly env: Env;
}

export class LocalMesh {
  /** Every router, node and jobs replica ever started here, in order; ask `running` for those that live. */
  readonly routers: Child[] = [];
  readonly nodes: Child[] = [];
  readonly jobs: Child[] = [];
  /** Undefined when NATS was given. */
  nats: NatsServer | undefined;

  readonly #options: LocalMeshOptions;
  readonly #launches = new Map<Child, Launch>();
  readonly #dir: string;
  readonly #programs: Programs;
  #natsPath = '';
  #natsUrl = '';
  #keepLock: FolderLock | undefined;
  #stopped: Promise<void> | undefined;

  private constructor(options: LocalMeshOptions, dir: string) {
    this.#options = options;
    this.#dir = dir;
    const services = path.join(packageRoot, 'dist', 'services');
    this.#programs = {
      router: path.join(services, 'router', 'main.js'),
      node: path.join(services, 'inference-node', 'main.js'),
      jobs: path.join(services, 'jobs', 'main.js'),
      ...options.programs,
    };
  }

  /** Resolves when every process is ready and the first router sees every node; else stops all and rejects. */
  static async start(options: LocalMeshOptions): Promise<LocalMesh> {
    // Short, because unix socket paths end at about 100 characters.
    const mesh = new LocalMesh(options, await mkdtemp(path.join(tmpdir(), 'dmesh-')));
    try {
      await Promise.race([mesh.#startAll(), whenAborted(options.signal)]);
    } catch (error) {
      await mesh.stop();
      throw error;
    }
    return mesh;
  }

  get natsUrl(): string {
    return this.#natsUrl;
  }

  /** host:port of the first router. */
  get address(): string {
    return this.routers[0]?.grpc ?? '';
  }

  async addRouter(options: { id?: string; listen?: string; env?: Env } = {}): Promise<Child> {
    const id = options.id ?? `router-${this.routers.length + 1}`;
    const router = this.#spawn({
      kind: 'router',
      id,
      command: [thisProcess.nodePath, this.#programs.router],
      env: {
        NATS_URL: this.#natsUrl,
        DMESH_ROUTER_ID: id,
        DMESH_ROUTER_LISTEN: options.listen ?? '127.0.0.1:0',
        DMESH_ROUTER_HTTP_LISTEN: '127.0.0.1:0',
        ...this.#options.env?.router,
        ...options.env,
      },
    });
    await router.waitReady(this.#readyTimeoutMs);
    return router;
  }

  async addNode(options: { id?: string; gpu?: LocalGpu | undefined; env?: Env } = {}): Promise<Child> {
    const id = options.id ?? `node-${this.nodes.length + 1}`;
    const node = this.#spawn({
      kind: 'node',
      id,
      command: [thisProcess.nodePath, this.#programs.node],
      env: {
        NATS_URL: this.#natsUrl,
        DMESH_NODE_ID: id,
        DMESH_NODE_LISTEN: '127.0.0.1:0',
        DMESH_NODE_HTTP_LISTEN: '127.0.0.1:0',
        ...(this.#options.engine === undefined ? {} : { DMESH_NODE_ENGINE: this.#options.engine }),
        // Nodes of a GPU keep the machine's own folder: the lock there is what keeps two meshes apart.
        ...(options.gpu ? { DMESH_NODE_GPU: options.gpu.uuid } : { DMESH_NODE_STATE_DIR: this.#dir }),
        ...this.#options.env?.node,
        ...options.env,
      },
    });
    await node.waitReady(this.#readyTimeoutMs);
    return node;
  }

  async addJobs(options: { id?: string; env?: Env } = {}): Promise<Child> {
    const id = options.id ?? `jobs-${this.jobs.length + 1}`;
    const dir = this.#storeDir;
    const jobs = this.#spawn({
      kind: 'jobs',
      id,
      command: [thisProcess.nodePath, this.#programs.jobs],
      env: {
        NATS_URL: this.#natsUrl,
        DMESH_JOBS_ID: id,
        DMESH_JOBS_LISTEN: '127.0.0.1:0',
        DMESH_JOBS_HTTP_LISTEN: '127.0.0.1:0',
        ...(dir === undefined ? {} : { DMESH_JOBS_STORE_DIR: dir }),
        ...this.#options.env?.jobs,
        ...options.env,
      },
    });
    await jobs.waitReady(this.#readyTimeoutMs);
    return jobs;
  }

  /** Starts a child that is gone once more, with the same id, settings and addresses. */
  async restart(gone: Child): Promise<Child> {
    const launch = this.#launches.get(gone);
    if (!launch || gone.running) throw new Error(`expected a child of this mesh that has ended, got ${gone.id}`);
    const prefix = ENV_PREFIX[launch.kind];
    const sameAddresses = gone.grpc ? { [`${prefix}LISTEN`]: gone.grpc, [`${prefix}HTTP_LISTEN`]: gone.http } : {};
    const child = this.#spawn({ ...launch, env: { ...launch.env, ...sameAddresses } });
    await child.waitReady(this.#readyTimeoutMs);
    return child;
  }

  /** Starts NATS anew on its port, whether it was stopped, killed or still runs. */
  async restartNats(): Promise<NatsServer> {
    if (!this.nats) throw new Error('expected a NATS of this mesh, it was given from outside');
    await this.nats.stop();
    this.nats = await this.#startNats(this.nats.port);
    if (this.#stopped) await this.nats.stop(); // the mesh ended meanwhile
    return this.nats;
  }

  /** Resolves when a router sees `count` nodes that are alive, attached and can draw; rejects, saying why not, when that cannot be. */
  async waitForNodes(count: number, options: { timeoutMs?: number; router?: Child } = {}): Promise<void> {
    const timeoutMs = options.timeoutMs ?? this.#readyTimeoutMs;
    const { token, tls } = this.#options;
    const client = connectMesh({ address: (options.router ?? this.routers[0])?.grpc ?? '', token, tls });
    try {
      for await (const { nodes } of client.watchMesh({ timeoutMs })) {
        if (nodes.filter(isReady).length >= count) return;
        // Engines that have failed several times are not worth the rest of the wait.
        const failedCount = nodes.filter((node) => node.engineState === 'failed').length;
        if (failedCount > 0 && nodes.length - failedCount < count) break;
      }
      throw this.#notReady(count, 'their engines failed');
    } catch (error) {
      if (!(error instanceof StatusError) || error.code !== Code.DEADLINE_EXCEEDED) throw error;
      throw this.#notReady(count, `that did not happen within ${timeoutMs} ms`);
    } finally {
      client.close();
    }
  }

  /**
   * Jobs replicas first, whose requests routers would wait for; then routers, since their callers wait; then nodes;
   * then NATS. One promise for all callers.
   */
  stop(): Promise<void> {
    this.#stopped ??= this.#stop();
    return this.#stopped;
  }

  /** Ends everything at once; for the second Ctrl-C. */
  kill(): void {
    for (const child of this.#launches.keys()) child.kill('SIGKILL');
    void this.nats?.kill();
  }

  async #startAll(): Promise<void> {
    const { keepDir, nodes, natsUrl, routerListen, routerCount = 1, jobsCount = 0 } = this.#options;
    if (keepDir !== undefined) this.#keepLock = await lockFolder(keepDir);
    if (natsUrl === undefined) {
      const log = (text: string) => this.#options.onLine?.({ process: 'setup', text });
      this.#natsPath = (await findNatsServer({ env: thisProcess.env, cacheDir: path.join(packageRoot, '.cache'), log })).path;
      this.nats = await this.#startNats(0);
      if (this.#stopped) await this.nats.stop(); // given up meanwhile
    }
    this.#natsUrl = natsUrl ?? this.nats?.url ?? '';
    const gpus = typeof nodes === 'number' ? Array.from({ length: nodes }, () => undefined) : nodes;
    await Promise.all([
      ...Array.from({ length: routerCount }, (_, index) => this.addRouter(index === 0 && routerListen ? { listen: routerListen } : {})),
      ...gpus.map((gpu) => this.addNode({ gpu })),
      ...Array.from({ length: jobsCount }, () => this.addJobs()),
    ]);
    if (gpus.length > 0) await this.waitForNodes(gpus.length);
  }

  async #stop(): Promise<void> {
    const graceMs = this.#options.graceMs ?? 40_000;
    for (const group of [this.jobs, this.routers, this.nodes]) await Promise.all(group.map((child) => child.stop(graceMs)));
    await this.nats?.stop();
    this.#keepLock?.release();
    this.#keepLock = undefined;
    await rm(this.#dir, { recursive: true, force: true });
  }

  /** With what each node complained about last. */
  #notReady(count: number, why: string): Error {
    const complaints = this.nodes.map((node) => `  ${node.id}: ${node.lastComplaint ?? 'no complaint'}`);
    return new Error([`expected ${count} node(s) ready to draw, ${why}`, ...complaints].join('\n'));
  }

  #spawn(launch: Launch): Child {
    if (this.#stopped) throw new Error(`expected a running mesh to start ${launch.id} in, it was stopped`);
    const env = { ...thisProcess.env, DMESH_LOG_FORMAT: 'json', ...launch.env };
    const child = new Child({ id: launch.id, command: launch.command, env, onLine: this.#options.onLine });
    this.#launches.set(child, launch);
    const started: Readonly<Record<Kind, Child[]>> = { router: this.routers, node: this.nodes, jobs: this.jobs };
    started[launch.kind].push(child);
    this.#shareKeepLock();
    return child;
  }

  async #startNats(port: number): Promise<NatsServer> {
    const onLine = (text: string) => this.#options.onLine?.({ process: 'nats', text });
    const nats = await startNatsServer({
      path: this.#natsPath,
      port,
      jetstream: true,
      dir: path.join(this.#options.keepDir ?? this.#dir, 'nats'),
      onLine,
    });
    this.#shareKeepLock(nats);
    return nats;
  }

  /** Those that work in the folder to keep, and go on for a while when this process is killed. */
  #shareKeepLock(nats = this.nats): void {
    const jobs = this.jobs.filter(({ pid, running }) => running && pid > 0);
    this.#keepLock?.shareWith([...(nats ? [{ id: 'nats', pid: nats.pid }] : []), ...jobs]);
  }

  /** Where the pictures of jobs lie: as long as their records. Undefined: the service's own choice, beside a NATS that is not ours. */
  get #storeDir(): string | undefined {
    const { keepDir, natsUrl } = this.#options;
    if (thisProcess.env.DMESH_JOBS_STORE_DIR !== undefined) return undefined; // somebody has chosen
    if (keepDir === undefined && natsUrl !== undefined) return undefined;
    return path.join(keepDir ?? this.#dir, 'jobs');
  }

  get #readyTimeoutMs(): number {
    return this.#options.readyTimeoutMs ?? 60_000;
  }
}

function whenAborted(signal: AbortSignal | undefined): Promise<never> {
  return new Promise((_, reject) => {
    if (signal?.aborted) reject(signal.reason);
    signal?.addEventListener('abort', () => reject(signal.reason), { once: true });
  });
}
