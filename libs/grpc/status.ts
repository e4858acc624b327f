/**
 * StatusError on the wire and back: a standard code, a sentence, and google.rpc details in the
 * trailer `grpc-status-details-bin` (the convention of gRPC's richer error model).
 */
import type { Metadata, StatusObject } from '@grpc/grpc-js';
import { errorDetails, googleStatus } from '#contracts';
import { Code, codeName, type ErrorDetails, Reason, StatusError, type Violation } from '#core';
import { metadataOf } from './metadata.js';

export const ERROR_DOMAIN = 'diffusionmesh';
const DETAILS_KEY = 'grpc-status-details-bin';
/**
 * A status travels in header fields, and a peer that finds them too long drops the connection with all
 * calls on it. gRPC's own implementations take 8 KB without asking, so that is what these come to.
 */
const MAX_TEXT_CHARS = 1000;
const MAX_DETAIL_CHARS = 200;
const MAX_VIOLATION_COUNT = 16;
const TYPE_PREFIX = 'type.googleapis.com/google.rpc.';

/** What grpc-js sends to a peer for this error; `cause` stays here. */
export function toStatusObject(error: StatusError, trailers: Readonly<Record<string, string>> = {}): Partial<StatusObject> {
  const metadata = metadataOf(trailers);
  metadata.set(DETAILS_KEY, encodeDetails(error));
  return { code: error.code, details: clip(error.message, MAX_TEXT_CHARS), metadata };
}

function encodeDetails(error: StatusError): Buffer {
  const { violations, resource, quota, retryDelayMs, metadata } = error.details;
  const any = (type: string, value: Uint8Array) => ({ typeUrl: TYPE_PREFIX + type, value: Buffer.from(value) });
  const { ErrorInfo, BadRequest, ResourceInfo, QuotaFailure, RetryInfo } = errorDetails;
  const figures = Object.fromEntries(Object.entries(metadata ?? {}).map(([key, value]) => [key, clip(value)]));
  const details = [any('ErrorInfo', ErrorInfo.encode({ reason: error.reason, domain: ERROR_DOMAIN, metadata: figures }).finish())];
  if (violations) details.push(any('BadRequest', BadRequest.encode({ fieldViolations: shown(violations) }).finish()));
  if (resource) {
    const message = {
      resourceType: resource.type,
      resourceName: clip(resource.name),
      owner: '',
      description: clip(resource.description, MAX_TEXT_CHARS),
    };
    details.push(any('ResourceInfo', ResourceInfo.encode(message).finish()));
  }
  if (quota) {
    const violation = { subject: clip(quota.subject), description: clip(quota.description) };
    details.push(any('QuotaFailure', QuotaFailure.encode({ violations: [violation] }).finish()));
  }
  if (retryDelayMs !== undefined) {
    const seconds = Math.floor(retryDelayMs / 1000);
    const retryDelay = { seconds: BigInt(seconds), nanos: Math.round((retryDelayMs - seconds * 1000) * 1e6) };
    details.push(any('RetryInfo', RetryInfo.encode({ retryDelay }).finish()));
  }
  return Buffer.from(googleStatus.Status.encode({ code: error.code, message: clip(error.message, MAX_DETAIL_CHARS), details }).finish());
}

function shown(violations: readonly Violation[]): Violation[] {
  const first = violations
    .slice(0, MAX_VIOLATION_COUNT)
    .map(({ field, description }) => ({ field: clip(field), description: clip(description) }));
  const more = violations.length - first.length;
  return more > 0 ? [...first, { field: '', description: `and ${more} more` }] : first;
}

function clip(text: string, maxChars = MAX_DETAIL_CHARS): string {
  return text.length <= maxChars ? text : `${text.slice(0, maxChars - 1)}…`;
}

/** What a grpc-js client threw, as one of ours. Total. */
export function statusFromGrpc(thrown: unknown): StatusError {
  if (thrown instanceof StatusError) return thrown;
  if (!isServiceError(thrown)) return StatusError.from(thrown);
  const { code, details: text, metadata } = thrown;
  return statusFromWire({ code, text, details: metadata?.get(DETAILS_KEY)[0], cause: thrown });
}

/** A status as it was received; `details` is the content of `grpc-status-details-bin`. Total. */
export function statusFromWire(status: { code: number; text: string; details: unknown; cause?: unknown }): StatusError {
  const { code, text, cause } = status;
  const decoded = decodeDetails(status.details);
  return new StatusError({
    code: code as Code,
    reason: decoded.reason ?? reasonOfTransport(code, text),
    message: text || codeName(code),
    ...decoded.details,
    ...(cause === undefined ? {} : { cause }),
  });
}

function isServiceError(thrown: unknown): thrown is { code: number; details: string; metadata?: Metadata } {
  return typeof thrown === 'object' && thrown !== null && 'code' in thrown && 'details' in thrown && typeof thrown.code === 'number';
}

/** Errors grpc-js makes itself have no details; its texts (1.14) tell what never left from what may have run. */
function reasonOfTransport(code: number, text: string): string {
  if (code === Code.UNAVAILABLE) {
    // A refused stream was never looked at (RFC 9113, 8.7), just like one that found no connection.
    return /^No connection established|^Name resolution failed|^Stream refused by server/.test(text)
      ? Reason.CONNECT_FAILED
      : Reason.CONNECTION_LOST;
  }
  if (code === Code.RESOURCE_EXHAUSTED && text.includes('larger than max')) return Reason.MESSAGE_TOO_LARGE;
  if (code === Code.DEADLINE_EXCEEDED) return Reason.DEADLINE;
  if (code === Code.CANCELLED) return Reason.CANCELLED;
  return codeName(code);
}

function decodeDetails(raw: unknown): { reason?: string; details: ErrorDetails } {
  if (!Buffer.isBuffer(raw)) return { details: {} };
  const details: { -readonly [K in keyof ErrorDetails]: ErrorDetails[K] } = {};
  let reason: string | undefined;
  try {
    for (const { typeUrl, value } of googleStatus.Status.decode(raw).details) {
      switch (typeUrl) {
        case `${TYPE_PREFIX}ErrorInfo`: {
          const info = errorDetails.ErrorInfo.decode(value);
          reason = info.reason;
          if (Object.keys(info.metadata).length > 0) details.metadata = info.metadata;
          break;
        }
        case `${TYPE_PREFIX}BadRequest`:
          details.violations = errorDetails.BadRequest.decode(value).fieldViolations;
          break;
        case `${TYPE_PREFIX}ResourceInfo`: {
          const info = errorDetails.ResourceInfo.decode(value);
          details.resource = { type: info.resourceType, name: info.resourceName, description: info.description };
          break;
        }
        case `${TYPE_PREFIX}QuotaFailure`: {
          const [violation] = errorDetails.QuotaFailure.decode(value).violations;
          if (violation) details.quota = violation;
          break;
        }
        case `${TYPE_PREFIX}RetryInfo`: {
          const delay = errorDetails.RetryInfo.decode(value).retryDelay;
          if (delay) details.retryDelayMs = Number(delay.seconds) * 1000 + delay.nanos / 1e6;
          break;
        }
      }
    }
  } catch {
    return { details: {} }; // garbage in a trailer must not hide the code that came with it
  }
  return reason === undefined ? { details } : { reason, details };
}
