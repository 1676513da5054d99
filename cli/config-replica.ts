/** The `replica` section of a database in the configuration: where its copies go, and how to get there. */

import { JetliteError } from '../lib/errors.js';
import type { NatsOptions } from '../lib/replica/nats/connect.js';
import { parseReplicaUrl, type ReplicaAddress } from '../lib/replica/open.js';
import type { ConfigMap } from './config-map.js';

export interface ReplicaConfig {
  readonly address: ReplicaAddress;
  readonly nats: NatsOptions;
  /** The longest wait under load, milliseconds; undefined for the default. */
  readonly syncIntervalMs: number | undefined;
}

/** Keys that only make sense with NATS, beside those that say where. */
const NATS_KEYS = [
  'username',
  'password',
  'token',
  'jwt',
  'seed',
  'creds',
  'nkey',
  'tls',
  'root-cas',
  'client-cert',
  'client-key',
  'max-reconnects',
  'reconnect-wait',
  'timeout',
] as const;

/** What Litestream's replicas can have and ours need not. */
const IGNORED = {
  name: 'a database has one replica, which needs no name',
  'validation-interval': 'run `jetlite verify` instead',
  'auto-recover': 'Jetlite resynchronises by itself',
  'max-sync-ltx-files': 'uploads are bounded without it',
  'max-sync-wal-bytes': 'batches are bounded without it',
} as const;

export function readReplica(section: ConfigMap): ReplicaConfig {
  const address = readAddress(section);
  const nats = readNatsOptions(section);
  if (address.kind !== 'nats') {
    for (const key of NATS_KEYS)
      if (section.has(key)) section.refuse(key, 'only a NATS replica can have this');
  }
  const syncIntervalMs = section.duration('sync-interval');
  // Leaving this out silently would upload in the clear what is meant to be encrypted.
  if (section.has('age')) section.refuse('age', 'Jetlite cannot encrypt replicas');
  for (const [key, why] of Object.entries(IGNORED)) section.ignore(key, why);
  section.end();
  return { address, nats, syncIntervalMs };
}

function readAddress(section: ConfigMap): ReplicaAddress {
  const type = section.text('type')?.toLowerCase();
  // Before the last @ stands who we are.
  section.refuseUnset('url', ({ rest }) => rest.includes('@'));
  const url = section.text('url');
  const bucket = section.text('bucket');
  const path = section.text('path');
  if (type !== undefined && type !== 'nats' && type !== 'file') {
    section.refuse('type', `expected nats or file, found "${type}"`);
  }
  const address =
    url !== undefined
      ? addressOfUrl(section, url, bucket)
      : bucket !== undefined
        ? addressOfUrl(section, 'nats://', bucket)
        : addressOfPath(section, type, path);
  if (type !== undefined && address.kind !== type) {
    section.refuse('type', `says ${type}, but this is the address of a ${address.kind} replica`);
  }
  if (address.kind === 'file') {
    if (bucket !== undefined) section.refuse('bucket', 'only a NATS replica has a bucket');
    if (url !== undefined && path !== undefined)
      section.refuse('path', 'the url says where already; leave one out');
    return address;
  }
  const prefix = path?.replace(/^\/+|\/+$/g, '') ?? '';
  if (prefix === '') return address;
  if (address.prefix !== '') section.refuse('path', 'the url names a prefix already; leave one out');
  if (prefix.split('/').some((part) => part === '' || part === '.' || part === '..'))
    section.refuse('path', 'expected a prefix without empty parts, . and ..');
  return { ...address, prefix };
}

function addressOfPath(
  section: ConfigMap,
  type: string | undefined,
  path: string | undefined,
): ReplicaAddress {
  if (type === 'nats') return section.refuse('type', 'a NATS replica needs a url or a bucket');
  if (path === undefined)
    return section.refuseAll('expected a url, a bucket or a path that says where the replica is', [
      'url',
      'bucket',
      'path',
    ]);
  return parsed(section, 'path', path);
}

function addressOfUrl(section: ConfigMap, url: string, bucket: string | undefined): ReplicaAddress {
  if (bucket === undefined) return parsed(section, 'url', url);
  if (!namesBucket(url)) return parsed(section, 'url', `${url.replace(/(?<!\/)\/$/, '')}/${bucket}`);
  const address = parsed(section, 'url', url);
  if (address.kind === 'nats' && address.bucket !== bucket) {
    section.refuse('bucket', `the url names another bucket, ${address.bucket}; leave one out`);
  }
  return address;
}

function namesBucket(url: string): boolean {
  const servers = url.slice(url.lastIndexOf('@') + 1).replace(/[a-z]+:\/\//gi, '');
  return servers.replace(/\/$/, '').includes('/');
}

function parsed(section: ConfigMap, key: string, text: string): ReplicaAddress {
  try {
    return parseReplicaUrl(text);
  } catch (error) {
    if (error instanceof JetliteError) section.refuse(key, error.message);
    throw error;
  }
}

function readNatsOptions(section: ConfigMap): NatsOptions {
  section.refuseUnset('root-cas');
  const read = {
    username: section.secret('username'),
    password: section.secret('password'),
    token: section.secret('token'),
    jwt: section.secret('jwt'),
    seed: section.secret('seed'),
    creds: section.secret('creds'),
    nkey: section.secret('nkey'),
    tls: section.flag('tls'),
    rootCAs: section.texts('root-cas'),
    clientCert: section.secret('client-cert'),
    clientKey: section.secret('client-key'),
    maxReconnects: section.integer('max-reconnects', -1),
    reconnectWaitMs: section.duration('reconnect-wait'),
    timeoutMs: section.duration('timeout'),
  };
  checkPairs(section);
  return Object.fromEntries(Object.entries(read).filter(([, value]) => value !== undefined));
}

/** One way to authenticate, and nothing of which the other half is missing. */
function checkPairs(section: ConfigMap): void {
  const needs = (key: string, other: string): void => {
    if (section.has(key) && !section.has(other)) section.refuse(key, `needs ${other} beside it`);
  };
  needs('client-cert', 'client-key');
  needs('client-key', 'client-cert');
  needs('password', 'username');
  needs('jwt', 'seed');
  if (section.has('seed') && !section.has('jwt') && !section.has('nkey')) {
    section.refuse('seed', 'needs jwt or nkey beside it');
  }
  const ways = ['username', 'token', 'jwt', 'creds', 'nkey'].filter((key) => section.has(key));
  if (ways.length > 1) section.refuse(ways[1], `${ways[0]} says how to authenticate already; leave one out`);
}
