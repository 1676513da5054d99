/** Addresses of NATS servers as users write them: in a replica's URL, in NATS_URL, in a configuration file. */

import { JetliteError } from '../../errors.js';

export const DEFAULT_PORT = 4222;

/** Where the servers of one cluster are, and the credentials their URLs carried. */
export interface NatsServers {
  /** `host:port` each, IPv6 hosts in brackets. */
  readonly hosts: readonly string[];
  /** True if a `tls://` said so: no connection without it. */
  readonly tls: boolean;
  readonly username?: string;
  readonly password?: string;
  /** A user without a password is a token, as in every NATS client. */
  readonly token?: string;
}

/** Where a replica in a bucket is. */
export interface NatsAddress {
  readonly kind: 'nats';
  /** Undefined where NATS_URL is to name them. */
  readonly servers: NatsServers | undefined;
  readonly bucket: string;
  /** What the names of all objects begin with, without a slash at the end; empty for none. */
  readonly prefix: string;
}

/** The parts of a `host:port`, the host without brackets. */
export function splitHost(address: string): { host: string; port: number } {
  const colon = address.lastIndexOf(':');
  return { host: address.slice(0, colon).replace(/^\[|\]$/g, ''), port: Number(address.slice(colon + 1)) };
}

/** A URL as it may be shown: everything before the last @ is left out, whatever it is. */
export function withoutUserInfo(url: string): string {
  const at = url.lastIndexOf('@');
  if (at === -1) return url;
  const scheme = /^[a-z]+:\/\//i.exec(url)?.[0] ?? '';
  return `${scheme}***@${url.slice(at + 1)}`;
}

/** What an address with credentials becomes by a slip: the scheme is missing, or mistyped, or quoted once too often. */
const MISTYPED = [
  /^[^/]*:[^/]*@/,
  /^[^/]*@(?:\[[^/\]]*\]|[^/:@]*):[1-9]\d{0,4}(?:[/,]|$)/,
  /^(?:[^/]*[:;,])?\/\/[^/]*@/,
  /^[^/]*\/\/(?:[^/]*:.*@|[^/]*@(?:\[[^/\]]*\]|[^/:@]*):[1-9]\d{0,4}(?:[/,]|$))/,
  /^["'\s]*(?:nats|tls)["']?(?:[:;.,]+[/\\]|\/\/|\/[^/]*:).*@/i,
];

/**
 * Whether a text that is meant for a path is rather an address, with a secret in it. What begins as only a path does, or
 * as every URL, is what it says.
 */
export function isMistypedAddress(text: string): boolean {
  if (/^(?:\.{1,2}\/|~\/|[a-z]:\\|\/(?!\/)|[a-z][a-z0-9+.-]*:\/\/)/i.test(text)) return false;
  return MISTYPED.some((slip) => slip.test(text));
}

/**
 * A message as it may be shown, whoever wrote what it quotes: the user part of everything in it that looks like an
 * address is left out, with a scheme or without.
 */
export function withoutSecrets(message: string): string {
  return message
    .replace(/(?<![a-z0-9+.-])(?!file:)([a-z][a-z0-9+.-]*:\/{1,2})\S*@/gi, '$1***@')
    .replace(/(^|[\s"'=(])((?:nats|tls)\/{1,2})[^\s/@]*:\S*@/gi, '$1$2***@')
    .replace(/(^|[\s"'=(])[^\s"'=(/:@]+:[^\s"'/@]+@/g, '$1***@');
}

/** Parses `[nats://|tls://][user:pass@]host[:port]`, several separated by commas. Throws USAGE. */
export function parseNatsServers(text: string): NatsServers {
  const shown = withoutUserInfo(text);
  const hosts: string[] = [];
  let tls = false;
  let credentials: { username: string; password: string } | { token: string } | undefined;
  for (const part of text.split(',')) {
    const [, scheme, userInfo, host, port] = matchServer(part.trim(), shown);
    if (scheme?.toLowerCase() === 'tls') tls = true;
    hosts.push(`${host}:${port === undefined ? DEFAULT_PORT : checkedPort(port, shown)}`);
    if (userInfo === undefined) continue;
    // A password with a comma in it must not become the name of a server.
    if (credentials === undefined && hosts.length > 1) throw misplacedCredentials(shown);
    credentials = parseUserInfo(userInfo, shown);
  }
  return { hosts, tls, ...credentials };
}

function matchServer(text: string, shown: string): RegExpExecArray {
  const match = /^(?:(nats|tls):\/\/)?(?:(.*)@)?(\[[0-9a-f:.]+\]|[^\s:/@[\]]+)(?::([^:/]*))?\/?$/is.exec(
    text,
  );
  if (match !== null) return match;
  throw new JetliteError('USAGE', `expected the address of a NATS server, found ${shown}`, {
    hint: 'Write nats://HOST:PORT, without a bucket. In a user or password, percent-encode @ : / , and %.',
  });
}

function misplacedCredentials(shown: string): JetliteError {
  return new JetliteError(
    'USAGE',
    `expected credentials at the first server of the list, if at any, in ${shown}`,
    {
      hint: 'Percent-encode a comma in a user or password as %2C.',
    },
  );
}

function checkedPort(port: string, shown: string): number {
  const number = Number(port);
  if (/^\d+$/.test(port) && number >= 1 && number <= 65535) return number;
  throw new JetliteError('USAGE', `expected a port from 1 to 65535 in ${shown}`);
}

function parseUserInfo(
  text: string,
  shown: string,
): { username: string; password: string } | { token: string } {
  const colon = text.indexOf(':');
  try {
    if (colon === -1) return { token: decodeURIComponent(text) };
    return {
      username: decodeURIComponent(text.slice(0, colon)),
      password: decodeURIComponent(text.slice(colon + 1)),
    };
  } catch {
    throw new JetliteError('USAGE', `a % in the credentials is not followed by two hex digits in ${shown}`);
  }
}
