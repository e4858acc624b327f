/**
 * What has each tenant had, and may it have more? Two buckets for each: requests a second and, where the
 * token file says so, GPU-seconds a minute. GPU time is charged by prediction when a request comes in and
 * corrected when it has run; it is let in while the account is not in debt, so one request may cost more
 * than a minute allows and is paid off afterwards. What other routers gave a tenant is charged here as
 * well, so that a limit holds over the mesh. Pure: time comes in as an argument.
 */
import type { Token } from './token.js';
import { type Rate, TokenBucket } from './token-bucket.js';

export type TenantLimits = Pick<Token, 'tenant' | 'ratePerSec' | 'burst' | 'gpuSecondsPerMinute'>;

/** `limit` says what was exceeded, in words for the caller. */
export type Charge = { readonly kind: 'charged' } | { readonly kind: 'limited'; readonly retryAfterMs: number; readonly limit: string };

interface Account {
  limits: TenantLimits;
  readonly requests: TokenBucket;
  gpu: TokenBucket | undefined;
}

const CHARGED: Charge = { kind: 'charged' };

export class Accounts {
  readonly #accounts = new Map<string, Account>();

  /** Tenants that are gone are forgotten, new limits hold from now on, levels stay. */
  replace(tenants: Iterable<TenantLimits>, nowMs: number): void {
    const named = new Set<string>();
    for (const limits of tenants) {
      named.add(limits.tenant);
      const account = this.#accounts.get(limits.tenant);
      if (account) retune(account, limits, nowMs);
      else this.#accounts.set(limits.tenant, open(limits, nowMs));
    }
    for (const tenant of this.#accounts.keys()) if (!named.has(tenant)) this.#accounts.delete(tenant);
  }

  /** One request; a tenant without an account has no limit. */
  request(tenant: string, nowMs: number): Charge {
    const account = this.#accounts.get(tenant);
    if (!account) return CHARGED;
    const { ratePerSec, burst } = account.limits;
    const retryAfterMs = account.requests.waitMs(1, nowMs);
    if (retryAfterMs > 0) return { kind: 'limited', retryAfterMs, limit: `${ratePerSec} requests a second, ${burst} at once` };
    account.requests.charge(1, nowMs);
    return CHARGED;
  }

  /** GPU time, as predicted. */
  work(tenant: string, costMs: number, nowMs: number): Charge {
    const account = this.#accounts.get(tenant);
    if (!account?.gpu) return CHARGED;
    const retryAfterMs = account.gpu.waitMs(0, nowMs);
    if (retryAfterMs > 0) return { kind: 'limited', retryAfterMs, limit: `${account.limits.gpuSecondsPerMinute} GPU-seconds a minute` };
    account.gpu.charge(costMs / 1000, nowMs);
    return CHARGED;
  }

  /** GPU time that was more (or, below 0, less) than charged. */
  correct(tenant: string, costMs: number, nowMs: number): void {
    this.#accounts.get(tenant)?.gpu?.charge(costMs / 1000, nowMs);
  }

  /** What another router let in: a request of the tenant's own, or none (`requestCount` 0) when somebody asked in its name. */
  servedElsewhere(
    tenant: string,
    { requestCount, costMs }: { readonly requestCount: 0 | 1; readonly costMs: number },
    nowMs: number,
  ): void {
    const account = this.#accounts.get(tenant);
    account?.requests.chargeElsewhere(requestCount, nowMs);
    account?.gpu?.chargeElsewhere(costMs / 1000, nowMs);
  }
}

function open(limits: TenantLimits, nowMs: number): Account {
  const rate = gpuRate(limits);
  return { limits, requests: new TokenBucket(requestRate(limits), nowMs), gpu: rate && new TokenBucket(rate, nowMs) };
}

function retune(account: Account, limits: TenantLimits, nowMs: number): void {
  account.limits = limits;
  account.requests.retune(requestRate(limits), nowMs);
  const rate = gpuRate(limits);
  if (rate && account.gpu) account.gpu.retune(rate, nowMs);
  else account.gpu = rate && new TokenBucket(rate, nowMs);
}

function requestRate({ ratePerSec, burst }: TenantLimits): Rate {
  return { perSec: ratePerSec, capacity: burst };
}

/** A minute's worth may be used at once. */
function gpuRate({ gpuSecondsPerMinute }: TenantLimits): Rate | undefined {
  return gpuSecondsPerMinute === undefined ? undefined : { perSec: gpuSecondsPerMinute / 60, capacity: gpuSecondsPerMinute };
}
