export { Accounts, type Charge, type TenantLimits } from './accounts.js';
export { AddressLimit } from './address-limit.js';
export type { AccessEvent } from './events.js';
export { hashSecret } from './secret-hash.js';
export { DEFAULT_LIMITS, makeToken, type Token } from './token.js';
export { ANONYMOUS_TENANT, formatTokenFile, isTenant, type ParsedTokens, parseTokenFile } from './token-file.js';
export { TokenSource } from './token-source.js';
export { TokenVerifier, type Verdict } from './verifier.js';
