/**
 * Server reflection, v1 and v1alpha, so that grpcurl needs no .proto files. It serves the descriptor
 * set buf built, byte for byte: descriptors rebuilt from loaded definitions lose imports and map
 * entries, and strict clients refuse them.
 */
import { createFileRegistry, fromBinary, toBinary } from '@bufbuild/protobuf';
import { FileDescriptorProtoSchema, FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';
import { descriptorSet, reflectionV1, reflectionV1alpha } from '#contracts';
import { Code } from '#core';
import type { Call, Writer } from './method.js';
import type { Server } from './server.js';

type Request = reflectionV1.ServerReflectionRequest;
type Response = reflectionV1.ServerReflectionResponse;
type Answer = NonNullable<Response['messageResponse']>;

/** `services`: the full names this server offers, as `grpcurl list` shows them. */
export function addReflection(server: Server, services: readonly string[]): void {
  const files = new DescriptorFiles();
  const names = [...services, 'grpc.health.v1.Health', 'grpc.reflection.v1.ServerReflection', 'grpc.reflection.v1alpha.ServerReflection'];
  const serverReflectionInfo = async (call: Call<AsyncIterable<Request>>, out: Writer<Response>) => {
    for await (const request of call.request) {
      await out.write({ validHost: request.host, originalRequest: request, messageResponse: answer(request, files, names) });
    }
  };
  const options = { endless: ['serverReflectionInfo'], always: true };
  server.add(reflectionV1.ServerReflectionService, { serverReflectionInfo }, options);
  server.add(reflectionV1alpha.ServerReflectionService, { serverReflectionInfo }, options);
}

function answer(request: Request, files: DescriptorFiles, services: readonly string[]): Answer {
  const asked = request.messageRequest;
  switch (asked?.$case) {
    case 'listServices':
      return { $case: 'listServicesResponse', value: { service: services.map((name) => ({ name })) } };
    case 'fileByFilename':
      return descriptors(files.withDependencies(asked.value), `file ${asked.value}`);
    case 'fileContainingSymbol':
      return descriptors(files.withDependencies(files.fileOf(asked.value)), `symbol ${asked.value}`);
    case 'fileContainingExtension':
    case 'allExtensionNumbersOfType':
      return notFound('extensions: these contracts have none');
    case undefined:
      return { $case: 'errorResponse', value: { errorCode: Code.INVALID_ARGUMENT, errorMessage: 'expected one question, got none' } };
  }
}

function descriptors(found: Uint8Array[] | undefined, what: string): Answer {
  if (!found) return notFound(what);
  return { $case: 'fileDescriptorResponse', value: { fileDescriptorProto: found.map((bytes) => Buffer.from(bytes)) } };
}

function notFound(what: string): Answer {
  return { $case: 'errorResponse', value: { errorCode: Code.NOT_FOUND, errorMessage: `${what}: not found` } };
}

class DescriptorFiles {
  readonly #bytes = new Map<string, Uint8Array>();
  readonly #dependencies = new Map<string, readonly string[]>();
  readonly #registry;

  constructor() {
    const set = fromBinary(FileDescriptorSetSchema, Buffer.from(descriptorSet, 'base64'));
    this.#registry = createFileRegistry(set);
    for (const file of set.file) {
      this.#bytes.set(file.name, toBinary(FileDescriptorProtoSchema, file));
      this.#dependencies.set(file.name, file.dependency);
    }
  }

  /** A type, a service, or a method or field inside one ("package.Service.Method"). */
  fileOf(symbol: string): string {
    for (let name = symbol; name.includes('.'); name = name.slice(0, name.lastIndexOf('.'))) {
      const found = this.#registry.get(name);
      if (found) return `${found.file.name}.proto`;
    }
    return '';
  }

  withDependencies(name: string): Uint8Array[] | undefined {
    if (!this.#bytes.has(name)) return undefined;
    const seen = new Set<string>([name]);
    for (const file of seen) for (const dependency of this.#dependencies.get(file) ?? []) seen.add(dependency);
    return [...seen].map((file) => this.#bytes.get(file)).filter((bytes) => bytes !== undefined);
  }
}
