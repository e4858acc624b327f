/**
 * Layers neither log nor count: they emit typed events, and libs/telemetry alone turns events into
 * lines and series. An emitter is only a function.
 */
export type Emit<Event> = (event: Event) => void;
