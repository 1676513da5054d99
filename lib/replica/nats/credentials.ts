/**
 * Who we are to a NATS server, and whom we trust: options, files and environment become what the client needs.
 *
 * Exactly one way to authenticate is used. What options say goes before the replica's URL, that before NATS_URL, that
 * before NATS_CREDS, that before NATS_NKEY; the credentials of NATS_URL are sent to no other server than those it names,
 * and not without TLS if it says tls://. Certificates that options do not name are those of NATS_CA, NATS_CERT and
 * NATS_KEY. The names are those of the nats command-line tool.
 *
 * Files are renewed while a program runs, and credentials expire: each connection reads them anew. One that is missing just
 * then, half written or of no use is not believed; the last that could serve is used instead.
 */

import { createPrivateKey, X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import { type ConnectionOptions, checkServerIdentity, type PeerCertificate } from 'node:tls';
import { type Authenticator, jwtAuthenticator, nkeyAuthenticator, nkeys, type TlsOptions } from 'nats';
import { JetliteError } from '../../errors.js';
import { type NatsServers, parseNatsServers, splitHost } from './address.js';

/** How to authenticate with NATS servers, beyond what a URL says. */
export interface NatsCredentials {
  readonly username?: string;
  readonly password?: string;
  readonly token?: string;
  /** A user's JWT; with the seed of its nkey unless it is a bearer token. */
  readonly jwt?: string;
  readonly seed?: string;
  /** Path of a credentials file: JWT and seed. */
  readonly creds?: string;
  /** The seed of an nkey, the path of a file that holds it, or the public key with `seed` beside it. */
  readonly nkey?: string;
}

export interface NatsTls {
  /** Refuse a connection without TLS. */
  readonly tls?: boolean;
  /** Paths of PEM files with the authorities to trust instead of the system's. */
  readonly rootCAs?: readonly string[];
  /** Paths of PEM files; one without the other is an error. */
  readonly clientCert?: string;
  readonly clientKey?: string;
}

export type Environment = Readonly<Record<string, string | undefined>>;

/** Where to connect, and who we say we are. */
export interface Login {
  readonly hosts: readonly string[];
  readonly tls: boolean;
  /** For messages: "the user name or password", "the token", … ; undefined without credentials. */
  readonly method: string | undefined;
  readonly authenticator: Authenticator | undefined;
  /** When what we said last becomes worthless, ms since the epoch; undefined for never, or where only the server knows. */
  readonly expiresMs?: () => number | undefined;
}

/** Puts together what URL, options and environment say. Throws USAGE for what is missing, wrong or contradictory. */
export async function resolveLogin(
  servers: NatsServers | undefined,
  given: NatsCredentials & NatsTls,
  env: Environment,
  onWarning: (message: string) => void,
): Promise<Login> {
  const fromEnv = env.NATS_URL ? serversOfEnvironment(env.NATS_URL) : undefined;
  const chosen = servers ?? fromEnv;
  if (chosen === undefined) {
    throw usage('the replica URL names no NATS server', 'Write nats://HOST/BUCKET, or set NATS_URL.');
  }
  const { hosts } = chosen;
  const sameServers = fromEnv !== undefined && hosts.every((host) => fromEnv.hosts.includes(host));
  const tls = given.tls === true || chosen.tls || (sameServers && fromEnv.tls);
  const candidates: (NatsCredentials | undefined)[] = [
    given,
    servers,
    sameServers ? fromEnv : undefined,
    env.NATS_CREDS ? { creds: env.NATS_CREDS } : undefined,
    env.NATS_NKEY ? { nkey: env.NATS_NKEY } : undefined,
  ];
  for (const candidate of candidates) {
    const found = candidate && (await authenticatorFor(candidate, onWarning));
    if (found) return { hosts, tls, ...found };
  }
  return { hosts, tls, method: undefined, authenticator: undefined };
}

function serversOfEnvironment(url: string): NatsServers {
  try {
    return parseNatsServers(url);
  } catch (error) {
    if (!(error instanceof JetliteError)) throw error;
    throw usage(`NATS_URL: ${error.message}`, error.hint ?? 'Set it to nats://HOST or tls://HOST.');
  }
}

async function authenticatorFor(
  given: NatsCredentials,
  onWarning: (message: string) => void,
): Promise<Pick<Login, 'method' | 'authenticator' | 'expiresMs'> | undefined> {
  const { username, password, token, jwt, seed, creds, nkey } = given;
  const ways = { username, token, jwt, creds, nkey };
  const used = Object.entries(ways).filter(([, value]) => value !== undefined);
  if (used.length > 1) {
    throw usage(
      `${used.map(([name]) => name).join(' and ')} are given together`,
      'Keep one way to authenticate.',
    );
  }
  if (password !== undefined && username === undefined)
    throw usage('a password is given without a username', 'Give the username too.');
  if (username !== undefined) {
    return {
      method: 'the user name or password',
      authenticator: () => ({ user: username, ...(password === undefined ? {} : { pass: password }) }),
    };
  }
  if (token !== undefined) return { method: 'the token', authenticator: () => ({ auth_token: token }) };
  if (jwt !== undefined) {
    return {
      method: 'the JWT',
      authenticator: jwtAuthenticator(jwt, seed ? checkedSeed(seed, 'seed') : undefined),
      expiresMs: () => expiryOf(jwt),
    };
  }
  if (creds !== undefined) {
    if (/-----|\n|^\s*eyJ/.test(creds))
      throw usage('creds: expected the path of a credentials file, found what is in one', 'Name the file.');
    const file = new Renewed(parseCreds(await readSecret(creds, 'creds', onWarning), creds), () =>
      parseCreds(readFileSync(creds, 'utf8'), creds),
    );
    return {
      method: `the credentials of ${creds}`,
      // The client asks for the JWT, then for the seed.
      authenticator: jwtAuthenticator(
        () => file.renew().jwt,
        () => file.last.seed,
      ),
      expiresMs: () => expiryOf(file.last.jwt),
    };
  }
  if (nkey === undefined && seed === undefined) return undefined;
  const found = new Renewed(
    await seedOf(nkey, seed, onWarning),
    nkey !== undefined && isPath(nkey) ? () => seedIn(readFileSync(nkey, 'utf8'), nkey) : undefined,
  );
  return { method: 'the nkey', authenticator: nkeyAuthenticator(() => found.renew()) };
}

/** What a file says, as of the last time that it said something of use. */
class Renewed<T> {
  last: T;
  readonly #read: (() => T) | undefined;

  constructor(first: T, read: (() => T) | undefined) {
    this.last = first;
    this.#read = read;
  }

  renew(): T {
    try {
      if (this.#read !== undefined) this.last = this.#read();
    } catch {
      // It is being replaced, or was taken away: the servers say what they think of what we have.
    }
    return this.last;
  }
}

/** Servers say of an expired JWT only that they refuse it. */
function expiryOf(jwt: string): number | undefined {
  try {
    const { exp } = JSON.parse(Buffer.from(jwt.split('.')[1] ?? '', 'base64url').toString()) as {
      exp?: unknown;
    };
    return typeof exp === 'number' && exp > 0 ? exp * 1000 : undefined;
  } catch {
    return undefined;
  }
}

async function seedOf(
  nkey: string | undefined,
  seed: string | undefined,
  onWarning: (message: string) => void,
): Promise<Uint8Array> {
  if (nkey === undefined) return checkedSeed(seed as string, 'seed');
  if (isPath(nkey)) return seedIn(await readSecret(nkey, 'nkey', onWarning), nkey);
  if (!/^U/.test(nkey)) return checkedSeed(nkey, 'nkey');
  if (seed === undefined) throw usage('nkey is a public key, and no seed is given', 'Give the seed as well.');
  const bytes = checkedSeed(seed, 'seed');
  if (nkeys.fromSeed(bytes).getPublicKey() !== nkey)
    throw usage('the seed does not belong to the nkey', 'Give the seed of this nkey.');
  return bytes;
}

/** Neither a seed nor a public key. A mistyped seed is no path: it would be shown as one. */
function isPath(nkey: string): boolean {
  return !/^\s*S[A-Z0-9]{40,}\s*$/i.test(nkey) && !/^U[A-Z2-7]{40,}$/.test(nkey);
}

function seedIn(text: string, path: string): Uint8Array {
  return checkedSeed(/S[A-Z2-7]{40,}/.exec(text)?.[0] ?? '', `nkey file ${path}`);
}

function checkedSeed(seed: string, where: string): Uint8Array {
  const bytes = new TextEncoder().encode(seed.trim());
  try {
    nkeys.fromSeed(bytes).getPublicKey();
  } catch {
    // The cause is left out: it could quote the seed.
    throw usage(`expected the seed of an nkey in ${where}`, 'It begins with SU and has 58 characters.');
  }
  return bytes;
}

function parseCreds(text: string, path: string): { jwt: string; seed: Uint8Array } {
  const [jwt, seed] = [
    ...text.matchAll(/-{3,}[^\n]*-{3,}\r?\n\s*([^\s-][^\s]*)\s*\r?\n\s*-{3,}[^\n]*-{3,}/g),
  ];
  if (jwt === undefined || seed === undefined) {
    throw usage(
      `expected a JWT and a seed between lines of dashes in the credentials file ${path}`,
      'Name a file as nsc makes it.',
    );
  }
  return { jwt: jwt[1], seed: checkedSeed(seed[1], `the credentials file ${path}`) };
}

/**
 * The client's TLS options for these hosts; undefined where the servers may decide. Throws USAGE for files that cannot
 * serve.
 */
export async function resolveTls(
  given: NatsTls,
  { tls: required, hosts }: Pick<Login, 'tls' | 'hosts'>,
  env: Environment,
  onWarning: (message: string) => void,
): Promise<TlsOptions | undefined> {
  const { rootCAs, clientCert, clientKey, names } = certificatesOf(given, env);
  if ((clientCert === undefined) !== (clientKey === undefined)) {
    const [found, missing] = clientKey === undefined ? [names.cert, names.key] : [names.key, names.cert];
    throw usage(
      `${found} is given without ${missing}`,
      'Give both: the certificate and the key that belongs to it.',
    );
  }
  if (!required && rootCAs.length === 0 && clientCert === undefined) return undefined;
  const options: TlsOptions & Pick<ConnectionOptions, 'checkServerIdentity'> = {
    checkServerIdentity: (name, certificate) => checkIdentity(hosts, name, certificate),
  };
  if (rootCAs.length > 0) {
    const texts = await Promise.all(rootCAs.map((path) => readNamed(path, names.ca)));
    const read = (all: readonly string[]) =>
      all.map((text, i) => checkedCertificate(text, rootCAs[i], names.ca)).join('\n');
    const authorities = new Renewed(read(texts), () =>
      read(rootCAs.map((path) => readFileSync(path, 'utf8'))),
    );
    defineGetter(options, 'ca', () => authorities.renew());
  }
  if (clientCert !== undefined && clientKey !== undefined) {
    const checked = (cert: string, key: string) => {
      checkedCertificate(cert, clientCert, names.cert);
      checkKeyPair(cert, clientCert, key, clientKey, names.key);
      return { cert, key };
    };
    const pair = new Renewed(
      checked(await readNamed(clientCert, names.cert), await readSecret(clientKey, names.key, onWarning)),
      () => checked(readFileSync(clientCert, 'utf8'), readFileSync(clientKey, 'utf8')),
    );
    // Whoever makes a connection takes them in this order.
    defineGetter(options, 'cert', () => pair.renew().cert);
    defineGetter(options, 'key', () => pair.last.key);
  }
  return options;
}

/** Paths, and for messages who named them. What the environment says is nothing to a connection that is to have no TLS. */
function certificatesOf(given: NatsTls, { NATS_CA, NATS_CERT, NATS_KEY }: Environment) {
  const { rootCAs = [], clientCert, clientKey, tls } = given;
  const isOwnCa = rootCAs.length > 0 || tls === false || !NATS_CA;
  const isOwnPair = clientCert !== undefined || clientKey !== undefined || tls === false;
  return {
    rootCAs: isOwnCa ? rootCAs : [NATS_CA],
    clientCert: isOwnPair ? clientCert : NATS_CERT || undefined,
    clientKey: isOwnPair ? clientKey : NATS_KEY || undefined,
    names: {
      ca: isOwnCa ? 'root-cas' : 'NATS_CA',
      cert: isOwnPair ? 'client-cert' : 'NATS_CERT',
      key: isOwnPair ? 'client-key' : 'NATS_KEY',
    },
  };
}

/**
 * The certificate must be for a host that the user named or, for servers that a cluster told us of, for their own
 * name. The client asks about `localhost` where it dialled an address without a name: that proves nothing.
 */
function checkIdentity(
  hosts: readonly string[],
  name: string,
  certificate: PeerCertificate,
): Error | undefined {
  const named = hosts.map((address) => splitHost(address).host);
  const accepted = name === 'localhost' ? named : [...named, name];
  if (accepted.some((host) => checkServerIdentity(host, certificate) === undefined)) return undefined;
  const refusal = checkServerIdentity(named[0], certificate);
  // Node's own words say which names there are for some kinds of host only.
  if (refusal !== undefined) refusal.message = namesIn(certificate);
  return refusal;
}

function namesIn({ subjectaltname, subject }: PeerCertificate): string {
  return subjectaltname?.replaceAll(/\b(?:DNS|IP Address):/g, '') ?? `${subject?.CN ?? 'none'}`;
}

function checkedCertificate(text: string, path: string, option: string): string {
  try {
    new X509Certificate(text);
  } catch (cause) {
    throw usage(`${option}: ${path} holds no certificate in PEM form`, 'Name a PEM file.', cause);
  }
  return text;
}

function defineGetter(options: TlsOptions, name: 'ca' | 'cert' | 'key', get: () => string): void {
  Object.defineProperty(options, name, { enumerable: true, get });
}

function checkKeyPair(cert: string, certPath: string, key: string, keyPath: string, option: string): void {
  let belongs: boolean;
  try {
    belongs = new X509Certificate(cert).checkPrivateKey(createPrivateKey(key));
  } catch {
    throw usage(
      `${option}: ${keyPath} holds no private key in PEM form`,
      'Name a PEM file without a passphrase.',
    );
  }
  if (!belongs)
    throw usage(
      `${option}: ${keyPath} does not belong to the certificate ${certPath}`,
      'Name the two that were made together.',
    );
}

async function readSecret(
  path: string,
  option: string,
  onWarning: (message: string) => void,
): Promise<string> {
  const text = await readNamed(path, option);
  if (process.platform !== 'win32' && ((await stat(path)).mode & 0o077) !== 0) {
    onWarning(`${option}: ${path} can be read by other users; make it private (chmod 600)`);
  }
  return text;
}

async function readNamed(path: string, option: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    const why = { ENOENT: 'it does not exist', EACCES: 'permission denied', EISDIR: 'it is a folder' }[
      code ?? ''
    ];
    throw usage(
      `${option}: cannot read ${path}: ${why ?? code}`,
      'Check the path and its permissions.',
      cause,
    );
  }
}

function usage(message: string, hint: string, cause?: unknown): JetliteError {
  return new JetliteError('USAGE', message, { hint, cause });
}
