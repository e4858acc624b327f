/** What the door to NATS has to say; libs/telemetry or a service's own observer turns it into lines and series. */

export type BusEvent =
  /** The first connection of this process. */
  | { readonly type: 'busConnected'; readonly server: string }
  /** The connection is gone; the bus is already trying again. */
  | { readonly type: 'busDisconnected'; readonly server: string; readonly cause: string }
  | { readonly type: 'busReconnected'; readonly server: string; readonly awayMs: number }
  /** The server holds the connection but answers no pings; it is dropped next. */
  | { readonly type: 'busStale'; readonly server: string }
  /** Nobody answered. Told once for each new cause, not for each try. */
  | { readonly type: 'busConnectFailed'; readonly server: string; readonly cause: string }
  /** The server complained, such as about a subject this account may not use. */
  | { readonly type: 'busError'; readonly cause: string }
  /** A subscriber threw: a fault in our own code. The bus goes on. */
  | { readonly type: 'busHandlerFailed'; readonly subject: string; readonly error: unknown }
  /** Bytes on a beat or leave subject that are not one. */
  | { readonly type: 'beatRejected'; readonly subject: string; readonly fault: string };
