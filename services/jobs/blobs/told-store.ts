/** A store that tells of every call. Lists, and what is asked once an hour, show in the figures of the sweep. */
import { type Clock, type Emit, StatusError } from '#core';
import type { BlobStore } from './blob-store.js';
import type { BlobEvent } from './events.js';

export interface ToldStoreOptions {
  readonly place: BlobEvent['place'];
  readonly clock: Clock;
  readonly emit: Emit<BlobEvent>;
}

export function toldStore(store: BlobStore, { place, clock, emit }: ToldStoreOptions): BlobStore {
  const told = async <T>(operation: BlobEvent['operation'], name: string, call: Promise<T>, sizeOf: (result: T) => number): Promise<T> => {
    const beganAt = clock.now();
    const tell = (failure: StatusError | undefined, sizeBytes: number) => {
      emit({ type: 'storeCalled', place, operation, name, failure, sizeBytes, durationMs: clock.now() - beganAt });
    };
    try {
      const result = await call;
      tell(undefined, sizeOf(result));
      return result;
    } catch (error) {
      tell(StatusError.from(error), 0);
      throw error;
    }
  };
  return {
    start: () => store.start(),
    put: (name, bytes) => told('put', name, store.put(name, bytes), () => bytes.byteLength),
    read: (name) => told('read', name, store.read(name), (bytes) => bytes.byteLength),
    delete: (name) => told('delete', name, store.delete(name), () => 0),
    link: (name, validForMs) => told('link', name, store.link(name, validForMs), () => 0),
    list: () => store.list(),
    sweepTemporary: (ageMs) => store.sweepTemporary(ageMs),
    freeBytes: () => store.freeBytes(),
    close: () => store.close(),
  };
}
