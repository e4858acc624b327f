/**
 * Is this a URL that a webhook may have? What can be told by its text is told when the job is submitted; what
 * a name leads to is looked at for each attempt (deliverer.ts). WHATWG's parser has made 127.0.0.1 of all its
 * other spellings (2130706433, 0x7f.1, 0177.1, １２７.0.0.1) by the time the host is looked at.
 */
import { isIP } from 'node:net';
import type { IsAllowed } from './addresses.js';

export type CheckedUrl = { readonly ok: true; readonly url: URL } | { readonly ok: false; readonly fault: string };

/** As browsers and servers have it. */
const MAX_CHARACTERS = 2048;
/** Below this, other protocols listen, which might make something of our bytes: mail, FTP, SSH. */
const FIRST_FREE_PORT = 1024;
const WEB_PORTS = ['', '80', '443'];

export function checkReceiverUrl(text: string, isAllowed: IsAllowed): CheckedUrl {
  const refuse = (fault: string): CheckedUrl => ({ ok: false, fault });
  if (text.length > MAX_CHARACTERS) return refuse(`expected at most ${MAX_CHARACTERS} characters, got ${text.length}`);
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    return refuse('expected a URL such as https://example.com/hook, got something else');
  }
  if (url.protocol !== 'https:' && url.protocol !== 'http:') return refuse(`expected http or https, got ${url.protocol.slice(0, 20)}`);
  if (url.username !== '' || url.password !== '') return refuse('expected a URL without user and password');
  if (!WEB_PORTS.includes(url.port) && Number(url.port) < FIRST_FREE_PORT) {
    return refuse(`expected port 80, 443 or one from ${FIRST_FREE_PORT}, got ${url.port}`);
  }
  if (addressesByText(url)?.some(isAllowed) === false) {
    return refuse(`expected a host that webhooks may go to, got ${hostOf(url)}`);
  }
  url.hash = ''; // never sent
  return { ok: true, url };
}

/** As a job has it that was submitted with this text; undefined for what is no URL. */
export function receiverUrlOf(text: string): string | undefined {
  if (!URL.canParse(text)) return undefined;
  const url = new URL(text);
  url.hash = '';
  return url.href;
}

/** The host as it is resolved and connected to: an IPv6 address without brackets. */
export function hostOf(url: URL): string {
  return url.hostname.replace(/^\[|\]$/g, '');
}

/** Host and port, for logs and lines; the path may hold secrets. */
export function receiverOf(url: string): string {
  return URL.canParse(url) ? new URL(url).host : '';
}

/** Addresses that need no resolver: the host is one, or localhost (RFC 6761). Undefined for all other names. */
export function addressesByText(url: URL): readonly string[] | undefined {
  const host = hostOf(url);
  if (isIP(host) !== 0) return [host];
  return /(^|\.)localhost\.?$/.test(host) ? ['127.0.0.1', '::1'] : undefined;
}
