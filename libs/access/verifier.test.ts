import { expect, test } from 'vitest';
import { hashSecret, matchesHash } from './secret-hash.js';
import { DEFAULT_LIMITS, makeToken, type Token } from './token.js';
import { TokenVerifier } from './verifier.js';

const CHEAP = { ln: 10, r: 8, p: 1 };

async function token(fields: Partial<Token> = {}): Promise<{ text: string; token: Token }> {
  const made = makeToken();
  const hash = await hashSecret(made.secret, CHEAP);
  const defaults = { ...DEFAULT_LIMITS, maxPriority: 'normal', models: undefined, admin: false, actsFor: false } as const;
  return { text: made.text, token: { id: made.id, tenant: 'acme', hash, ...defaults, ...fields } };
}

function counting() {
  const seen: string[] = [];
  let running = 0;
  let mostRunning = 0;
  const matches = async (secret: string, hash: string) => {
    seen.push(secret);
    mostRunning = Math.max(mostRunning, ++running);
    const right = await matchesHash(secret, hash);
    running--;
    return right;
  };
  return { seen, matches, mostRunning: () => mostRunning };
}

test('a token is known by its id and secret, and by nothing else', async () => {
  const [mine, other] = [await token(), await token({ tenant: 'other' })];
  const verifier = new TokenVerifier();
  verifier.replace([mine.token, other.token]);
  expect(await verifier.verify(mine.text)).toEqual({ kind: 'known', token: mine.token });
  const crossed = `dm_${mine.token.id}_${other.text.split('_').slice(2).join('_')}`;
  const wrong = ['', 'dm_', mine.text.slice(0, -1), `${mine.text}x`, crossed, `dm_nobody_${'a'.repeat(32)}`, 'a'.repeat(10_000)];
  for (const text of wrong) expect(await verifier.verify(text)).toEqual({ kind: 'unknown' });
});

test('the slow hash runs once for a token, however many call at once, and wrong secrets cost none after that', async () => {
  const mine = await token();
  const { seen, matches } = counting();
  const verifier = new TokenVerifier({ matches });
  verifier.replace([mine.token]);
  const verdicts = await Promise.all(Array.from({ length: 500 }, () => verifier.verify(mine.text)));
  expect(new Set(verdicts.map(({ kind }) => kind))).toEqual(new Set(['known']));
  for (let i = 0; i < 1000; i++) expect(verifier.verify(`dm_${mine.token.id}_${String(i).padStart(32, 'x')}`)).toEqual({ kind: 'unknown' });
  expect(seen.length).toBe(1);
});

test('before that, a flood of wrong secrets runs few slow hashes, at most two at once, and none for a secret twice', async () => {
  const tokens = await Promise.all(Array.from({ length: 4 }, () => token()));
  const { seen, matches, mostRunning } = counting();
  const verifier = new TokenVerifier({ matches });
  verifier.replace(tokens.map((one) => one.token));
  const wrong = (id: string, n: number) => verifier.verify(`dm_${id}_${String(n).padStart(32, 'x')}`);
  const flood = tokens.flatMap(({ token: { id } }) => Array.from({ length: 1000 }, (_, n) => wrong(id, n)));
  const verdicts = await Promise.all(flood);
  expect(verdicts.filter(({ kind }) => kind === 'known')).toEqual([]);
  expect(verdicts.filter(({ kind }) => kind === 'busy').length).toBe(4 * 996);
  expect(seen.length).toBe(4 * 4);
  expect(mostRunning()).toBe(2);
  for (const { token: one } of tokens) expect(wrong(one.id, 0)).toEqual({ kind: 'unknown' });
  expect(seen.length).toBe(4 * 4);
  expect(await verifier.verify(tokens[0]?.text ?? '')).toMatchObject({ kind: 'known' });
});

test('a new file: what is unchanged stays verified, what is revoked is unknown at once, also while it is looked at', async () => {
  const [kept, revoked] = [await token(), await token()];
  const { seen, matches } = counting();
  const verifier = new TokenVerifier({ matches });
  verifier.replace([kept.token, revoked.token]);
  await verifier.verify(kept.text);
  const underWay = verifier.verify(revoked.text);
  const promoted = { ...kept.token, maxPriority: 'high' } as const;
  verifier.replace([promoted]);
  expect(await underWay).toEqual({ kind: 'unknown' });
  expect(verifier.verify(kept.text)).toEqual({ kind: 'known', token: promoted });
  expect(verifier.verify(revoked.text)).toEqual({ kind: 'unknown' });
  expect(seen.length).toBe(2);
});

test('the hash of the default price is right for its secret alone, and differs each time', async () => {
  const [one, two] = await Promise.all([hashSecret('secret'), hashSecret('secret')]);
  expect(one).not.toBe(two);
  expect(one).toMatch(/^\$scrypt\$ln=15,r=8,p=1\$/);
  expect(await matchesHash('secret', one)).toBe(true);
  expect(await matchesHash('secreT', one)).toBe(false);
  expect(await matchesHash('secret', 'secret')).toBe(false);
});
