/**
 * From the text a user writes to an open replica.
 *
 * `nats://[user:pass@]host[:port][,host[:port]…]/BUCKET[/prefix]`, the same with `tls://`, `nats:///BUCKET` with the
 * server from NATS_URL, `file:///folder`, or a plain path of a folder.
 */

import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { JetliteError } from '../errors.js';
import { openFileReplica } from './file.js';
import { isMistypedAddress, type NatsAddress, parseNatsServers, withoutUserInfo } from './nats/address.js';
import type { NatsReplicaOptions } from './nats/replica.js';
import type { Replica } from './replica.js';

export interface FileAddress {
  readonly kind: 'file';
  readonly folder: string;
}

export type ReplicaAddress = FileAddress | NatsAddress;

/** How to open a replica; all of it matters to NATS alone. */
export type ReplicaOptions = NatsReplicaOptions;

/** An object's name stands in a subject, in base64, and servers take no lines beyond 4,096 bytes. */
const LONGEST_PREFIX = 2048;
const SCHEMES = 'nats://HOST/BUCKET[/PREFIX], tls://HOST/BUCKET[/PREFIX], file:///FOLDER or a path';

/** Opens the replica at an address. Throws USAGE for an address that cannot be one, REPLICA if it is out of reach. */
export async function openReplica(
  address: string | ReplicaAddress,
  options: ReplicaOptions = {},
): Promise<Replica> {
  const parsed = typeof address === 'string' ? parseReplicaUrl(address) : address;
  if (parsed.kind === 'file') return openFileReplica(parsed.folder);
  // The NATS client takes a while to load: only those who need it wait for it.
  const { openNatsReplica } = await import('./nats/replica.js');
  return openNatsReplica(parsed, options);
}

/** What a replica URL or path names. Nothing is looked at or connected to. Throws USAGE, never showing credentials. */
export function parseReplicaUrl(untrimmed: string): ReplicaAddress {
  const text = untrimmed.trim();
  if (text === '') throw usage('the replica URL is empty');
  const scheme = /^([A-Za-z][A-Za-z0-9+.-]*):\/\//.exec(text)?.[1].toLowerCase();
  if (scheme === 'nats' || scheme === 'tls') return parseNatsUrl(text);
  if (scheme === 'file') return fileAddress(folderOfUrl(text));
  if (scheme !== undefined) throw usage(`${scheme}:// is no kind of replica that Jetlite knows`);
  // A mistyped URL must not become a folder, with whatever secret it holds in the folder's name.
  const mistyped = /^(nats|tls|file):/i.exec(text)?.[1].toLowerCase();
  if (mistyped !== undefined) throw usage(`expected ${mistyped}:// at the start of the replica URL`);
  if (/^(?:nats|tls)\/\//i.test(text) || isMistypedAddress(text))
    throw usage(
      'expected nats:// at the start of the replica URL, or a path: write ./ before a path that looks like an address',
    );
  return fileAddress(resolve(text.startsWith('~/') ? join(homedir(), text.slice(2)) : text));
}

function fileAddress(folder: string): ReplicaAddress {
  if (/\.zip$/i.test(folder)) {
    throw new JetliteError('USAGE', `${folder}: replicas in a zip file are not supported yet`, {
      hint: 'Name a folder instead.',
    });
  }
  return { kind: 'file', folder };
}

function folderOfUrl(text: string): string {
  try {
    return fileURLToPath(text);
  } catch (error) {
    throw new JetliteError('USAGE', `expected file:///FOLDER with three slashes, found ${text}`, {
      cause: error,
    });
  }
}

function parseNatsUrl(text: string): ReplicaAddress {
  const shown = withoutUserInfo(text);
  // Credentials may come before every server of the list; the bucket follows the first slash after the last.
  const [, scheme, rest] = /^([a-z]+):\/\/(.*)$/is.exec(
    text.trim().replace(/,(?:nats|tls):\/\//gi, ','),
  ) as RegExpExecArray;
  const slash = rest.indexOf('/', rest.lastIndexOf('@') + 1);
  const authority = slash === -1 ? rest : rest.slice(0, slash);
  if (/[?#]/.test(slash === -1 ? authority : rest.slice(slash))) {
    throw usage(
      `a NATS replica URL takes no ? and no #: ${shown}`,
      'Give options as flags or in the configuration file.',
    );
  }
  const segments =
    slash === -1
      ? []
      : rest
          .slice(slash + 1)
          .replace(/\/+$/, '')
          .split('/');
  const [bucket, ...prefix] = segments.map((segment) => decoded(segment, shown));
  if (bucket === undefined || bucket === '') {
    const hint = /\/.*@/.test(rest)
      ? 'Write it behind the server: nats://HOST/BUCKET; an @ in a prefix as %40.'
      : 'Write it behind the server: nats://HOST/BUCKET.';
    throw usage(`the URL names no bucket: ${shown}`, hint);
  }
  if (!/^[A-Za-z0-9_-]+$/.test(bucket)) {
    throw usage(
      `${JSON.stringify(bucket)} cannot be a bucket: expected letters, digits, - and _ in ${shown}`,
    );
  }
  if (prefix.some((part) => part === '' || part === '.' || part === '..')) {
    throw usage(`the prefix after the bucket has an empty part, . or .. in ${shown}`);
  }
  if (Buffer.byteLength(prefix.join('/')) > LONGEST_PREFIX) {
    throw usage(
      `the prefix after the bucket is longer than ${LONGEST_PREFIX} bytes`,
      'Choose a shorter one.',
    );
  }
  const servers = authority === '' ? undefined : parseNatsServers(`${scheme}://${authority}`);
  return { kind: 'nats', servers, bucket, prefix: prefix.join('/') };
}

function decoded(segment: string, shown: string): string {
  try {
    return decodeURIComponent(segment);
  } catch {
    throw usage(`a % is not followed by two hex digits in ${shown}`);
  }
}

function usage(message: string, hint = `Give a replica as ${SCHEMES}.`): JetliteError {
  return new JetliteError('USAGE', message, { hint });
}
