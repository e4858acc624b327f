/**
 * What a server says of itself is what it is: descriptors from reflection satisfy a strict reader, and
 * proto/ read by another implementation agrees with the code generated from it.
 */
import path from 'node:path';
import { createFileRegistry, fromBinary } from '@bufbuild/protobuf';
import { type FileDescriptorProto, FileDescriptorProtoSchema } from '@bufbuild/protobuf/wkt';
import { loadSync, type MethodDefinition, type ServiceDefinition } from '@grpc/proto-loader';
import { afterEach, describe, expect, test } from 'vitest';
import { admin, engine, generation, health, jobs, node, reflectionV1, reflectionV1alpha } from '#contracts';
import { Channel } from '#grpc';
import { packageRoot, systemClock } from '#runtime';
import { only, useMesh } from '../support/test-mesh.js';

type AnyMethod = { readonly path: string; readonly requestStream: boolean; readonly responseStream: boolean };
type Question = NonNullable<reflectionV1.ServerReflectionRequest['messageRequest']>;

const GENERATED: Readonly<Record<string, object>> = {
  'diffusionmesh.v1.ImageGenerationService': generation.ImageGenerationServiceService,
  'diffusionmesh.v1.MeshAdminService': admin.MeshAdminServiceService,
  'diffusionmesh.v1.JobsService': jobs.JobsServiceService,
  'diffusionmesh.v1.InferenceNodeService': node.InferenceNodeServiceService,
  'diffusionmesh.v1.EngineService': engine.EngineServiceService,
  'grpc.health.v1.Health': health.HealthService,
  'grpc.reflection.v1.ServerReflection': reflectionV1.ServerReflectionService,
  'grpc.reflection.v1alpha.ServerReflection': reflectionV1alpha.ServerReflectionService,
};
const COMMON = [
  'diffusionmesh.v1.ImageGenerationService',
  'grpc.health.v1.Health',
  'grpc.reflection.v1.ServerReflection',
  'grpc.reflection.v1alpha.ServerReflection',
];

const mesh = useMesh({ nodes: 1 });
const channels: Channel[] = [];
afterEach(() => {
  for (const channel of channels.splice(0)) channel.close();
});

async function ask(address: string, version: 'v1' | 'v1alpha', messageRequest: Question) {
  const channel = new Channel(address, { clock: systemClock });
  channels.push(channel);
  const service = version === 'v1' ? reflectionV1.ServerReflectionService : reflectionV1alpha.ServerReflectionService;
  const { send, messages, end } = channel.duplex(service.serverReflectionInfo, { deadlineAt: systemClock.now() + 10_000 });
  send({ host: '', messageRequest });
  end();
  for await (const { messageResponse } of messages) return messageResponse;
  throw new Error('expected an answer, the stream ended');
}

async function servicesOf(address: string, version: 'v1' | 'v1alpha'): Promise<string[]> {
  const answer = await ask(address, version, { $case: 'listServices', value: '' });
  return answer?.$case === 'listServicesResponse' ? answer.value.service.map(({ name }) => name).sort() : [];
}

/** In the order the server gives them: a file before what it imports. */
async function filesFor(address: string, version: 'v1' | 'v1alpha', symbol: string): Promise<FileDescriptorProto[]> {
  const answer = await ask(address, version, { $case: 'fileContainingSymbol', value: symbol });
  if (answer?.$case !== 'fileDescriptorResponse') throw new Error(`expected descriptors of ${symbol}, got ${JSON.stringify(answer)}`);
  return answer.value.fileDescriptorProto.map((bytes) => fromBinary(FileDescriptorProtoSchema, bytes));
}

const methodsOf = (definition: object) =>
  Object.values(definition as Record<string, AnyMethod>)
    .map(({ path, requestStream, responseStream }) => `${path}${requestStream ? ' <stream' : ''}${responseStream ? ' >stream' : ''}`)
    .sort();

describe.each([
  ['router', ['diffusionmesh.v1.MeshAdminService', 'diffusionmesh.v1.JobsService'], () => mesh().local.address],
  ['node', ['diffusionmesh.v1.InferenceNodeService'], () => mesh().node('node-1').grpc],
] as const)('the %s', (_, ownServices, address) => {
  test.each(['v1', 'v1alpha'] as const)('reflection %s lists what it serves', async (version) => {
    expect(await servicesOf(address(), version)).toEqual([...COMMON, ...ownServices].sort());
  });

  test.each(['v1', 'v1alpha'] as const)(
    'reflection %s: each service comes with descriptors that a strict reader can link',
    async (version) => {
      for (const name of await servicesOf(address(), version)) {
        const files = await filesFor(address(), version, name);
        // Each answer stands alone; linking needs a file's imports before the file.
        const registry = createFileRegistry({ $typeName: 'google.protobuf.FileDescriptorSet', file: importsFirst(files) });
        const service = registry.getService(name);
        const described = service?.methods.map((method) => {
          const from = method.methodKind === 'client_streaming' || method.methodKind === 'bidi_streaming' ? ' <stream' : '';
          const to = method.methodKind === 'server_streaming' || method.methodKind === 'bidi_streaming' ? ' >stream' : '';
          return `/${name}/${method.name}${from}${to}`;
        });
        expect(described?.sort()).toEqual(methodsOf(GENERATED[name] ?? {}));
      }
    },
  );

  test('a message, a method and a file can be asked for by name; what does not exist is NOT_FOUND', async () => {
    for (const symbol of ['diffusionmesh.v1.GenerateRequest', 'diffusionmesh.v1.ImageGenerationService.Generate']) {
      const files = await filesFor(address(), 'v1', symbol);
      expect(files.map(({ name }) => name)).toContain('diffusionmesh/v1/generation.proto');
    }
    const byName = await ask(address(), 'v1', { $case: 'fileByFilename', value: 'diffusionmesh/v1/generation.proto' });
    expect(byName?.$case).toBe('fileDescriptorResponse');
    const missing = await ask(address(), 'v1', { $case: 'fileContainingSymbol', value: 'no.such.Thing' });
    expect(missing).toMatchObject({ $case: 'errorResponse', value: { errorCode: 5 } });
  });
});

function importsFirst(files: readonly FileDescriptorProto[]): FileDescriptorProto[] {
  const byName = new Map(files.map((file) => [file.name, file]));
  const ordered = new Set<FileDescriptorProto>();
  const visit = (file: FileDescriptorProto) => {
    for (const name of file.dependency) {
      const imported = byName.get(name);
      if (!imported) throw new Error(`expected ${name}, which ${file.name} imports, in the same answer`);
      if (!ordered.has(imported)) visit(imported);
    }
    ordered.add(file);
  };
  for (const file of files) visit(file);
  return [...ordered];
}

describe('proto/ as proto-loader reads it', () => {
  const protoDir = path.join(packageRoot, 'proto');
  const files = [
    'diffusionmesh/v1/generation.proto',
    'diffusionmesh/v1/admin.proto',
    'diffusionmesh/v1/node.proto',
    'diffusionmesh/v1/engine.proto',
    'diffusionmesh/v1/jobs.proto',
  ];
  const loaded = loadSync(files, { includeDirs: [protoDir], longs: String, defaults: true, oneofs: true });
  const isService = (definition: object): definition is ServiceDefinition => !('format' in definition);
  const services = Object.entries(loaded).filter(([, definition]) => isService(definition));

  test('has the services and methods of the generated code, with the same streams', () => {
    expect(services.map(([name]) => name).sort()).toEqual(
      Object.keys(GENERATED)
        .filter((name) => name.startsWith('diffusionmesh'))
        .sort(),
    );
    for (const [name, definition] of services) expect(methodsOf(definition)).toEqual(methodsOf(GENERATED[name] ?? {}));
  });

  test('reads a request as the generated code wrote it', () => {
    const request = generation.GenerateRequest.fromPartial({
      requestId: 'r-1',
      prompt: '一个红色的圆',
      width: 128,
      guidanceScale: 0,
      seed: 2n ** 63n,
      loras: [{ name: 'neon', strength: 0.5 }],
      format: generation.ImageFormat.WEBP,
    });
    const bytes = Buffer.from(generation.GenerateRequest.encode(request).finish());
    const service = loaded['diffusionmesh.v1.ImageGenerationService'] as Record<string, MethodDefinition<object, object>>;
    const { seed, ...read } = only(service.Generate).requestDeserialize(bytes) as { seed: unknown };
    expect(read).toMatchObject({
      requestId: 'r-1',
      prompt: '一个红色的圆',
      width: 128,
      guidanceScale: 0,
      loras: [{ name: 'neon', strength: 0.5 }],
      format: 3,
    });
    expect(String(seed)).toBe(String(2n ** 63n));
  });
});
