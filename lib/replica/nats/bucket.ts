/**
 * Object-store buckets: what they are to JetStream, and which of their settings a replica can live with.
 *
 * Bucket `B` is the stream `OBJ_B` with the subjects `$O.B.C.>` (chunks) and `$O.B.M.>` (metas), as NATS architecture
 * decision record 20 lays down.
 */

import {
  DiscardPolicy,
  ErrorCode,
  type JetStreamClient,
  type JetStreamManager,
  type NatsError,
  RetentionPolicy,
  StorageType,
  StoreCompression,
  type StreamConfig,
  type StreamInfo,
} from 'nats';
import { JetliteError } from '../../errors.js';
import { printable } from '../../printable.js';
import type { NatsLink } from './connect.js';
import { Api, apiCode, jetStreamOff, missingBucket, requestError } from './errors.js';
import { StreamLeader } from './leader.js';

const STREAM_PREFIX = 'OBJ_';
const NANOS_PER_MS = 1e6;
/** The server's version that purges one subject without leaving out messages of others (its pull request 3838). */
const PUSHES_ALL_SINCE = [2, 9, 12];

/** Settings for a new bucket; what is left out is the server's or ADR-20's default. */
export interface BucketSettings {
  readonly description?: string;
  /** How many servers of a cluster hold the bucket: 1, 3 or 5. */
  readonly replicas?: number;
  readonly storage?: 'file' | 'memory';
  readonly maxBytes?: number;
  /** After this time the server drops objects: never for a replica's bucket. */
  readonly ttlMs?: number;
  readonly compression?: boolean;
}

/** A bucket as its server shows it. */
export interface BucketInfo {
  readonly name: string;
  readonly description: string;
  readonly replicas: number;
  readonly storage: 'file' | 'memory';
  /** -1 for no limit. */
  readonly maxBytes: number;
  /** 0 for no end. */
  readonly ttlMs: number;
  readonly compression: boolean;
  /** Bytes in the store, chunks and metas. */
  readonly bytes: number;
  readonly messages: number;
  readonly createdMs: number;
  /** Settings that let the server drop parts of a replica or take none, in words. */
  readonly dangers: readonly string[];
}

/** An open bucket: the connection, and what of its settings matters to those who write and read. */
export interface Bucket {
  readonly link: NatsLink;
  readonly name: string;
  readonly stream: string;
  readonly jetstream: JetStreamClient;
  readonly manager: JetStreamManager;
  /** True if the stream has more than one replica, so that messages can be under way unseen. */
  readonly replicated: boolean;
  readonly leader: StreamLeader;
  /** Its messages come from another stream, at least some of them. */
  readonly isCopy: boolean;
  /** False where the server may leave out messages of a consumer's when others are purged. */
  readonly pushesAll: boolean;
  /** Bytes, headers included; -1 for no limit. */
  readonly maxMessageSize: number;
  /** Why nothing can be put into it; undefined if it can. */
  readonly unwritable: string | undefined;
  /** Settings that let the server drop parts of a replica, in words. */
  readonly dangers: readonly string[];
  /**
   * Looks at the settings again: somebody may have changed them, or made the bucket anew. New warnings are told. Throws what
   * the server refuses with.
   */
  look(): Promise<void>;
}

/** Opens a bucket that exists. Throws REPLICA if it does not. What is wrong with its settings is warned of. */
export async function openBucket(
  link: NatsLink,
  name: string,
  onWarning: (message: string) => void = () => {},
): Promise<Bucket> {
  const manager = await managerOf(link, name);
  const info = await streamOf(manager, link, name);
  let { config } = info;
  let dangers = dangersOf(config);
  let unwritable = unwritableBy(config);
  const told = new Set<string>();
  const warn = ({ cluster }: StreamInfo): void => {
    for (const warning of warningsOf(name, config, cluster?.name, dangers)) {
      if (!told.has(warning)) onWarning(warning);
      told.add(warning);
    }
  };
  warn(info);
  return {
    link,
    name,
    stream: config.name,
    jetstream: link.connection.jetstream({ timeout: link.timeoutMs }),
    manager,
    get replicated() {
      return config.num_replicas > 1;
    },
    leader: new StreamLeader(manager, info),
    get isCopy() {
      return config.mirror !== undefined || (config.sources ?? []).length > 0;
    },
    // Asked each time: after a reconnect it may be another server.
    get pushesAll() {
      return isAtLeast(link.connection.info?.version ?? '', PUSHES_ALL_SINCE);
    },
    get maxMessageSize() {
      return config.max_msg_size;
    },
    get dangers() {
      return dangers;
    },
    get unwritable() {
      return unwritable;
    },
    async look() {
      const now = await link.ask(() => manager.streams.info(config.name));
      config = now.config;
      dangers = dangersOf(config);
      unwritable = unwritableBy(config);
      warn(now);
    },
  };
}

function warningsOf(
  name: string,
  config: StreamConfig,
  cluster: string | undefined,
  dangers: readonly string[],
): string[] {
  const warnings = dangers.map((danger) => `bucket ${name} can lose parts of a replica: ${danger}`);
  if (config.storage === StorageType.Memory) {
    warnings.push(`bucket ${name} is in memory: what is in it is gone when its servers end`);
  }
  if (config.num_replicas === 1 && cluster) {
    warnings.push(
      `bucket ${name} is on one server of the cluster ${cluster} only; three replicas would outlive one`,
    );
  }
  return warnings;
}

/** Whether a version of the server is that one or newer; one that tells none is believed to be. */
function isAtLeast(version: string, least: readonly number[]): boolean {
  const parts = /^v?(\d+)\.(\d+)\.(\d+)/.exec(version)?.slice(1).map(Number);
  if (parts === undefined) return true;
  const at = parts.findIndex((part, i) => part !== least[i]);
  return at === -1 || parts[at] > least[at];
}

/** Throws REPLICA if the server may drop parts of a replica from the bucket. Asks it only where it once said so. */
export async function expectSafe(bucket: Bucket): Promise<void> {
  if (bucket.dangers.length === 0 && bucket.unwritable === undefined) return;
  const { name, link } = bucket;
  try {
    await bucket.look();
  } catch (error) {
    throw requestError(error, 'look at the settings', name, link.url);
  }
  const { dangers, unwritable } = bucket;
  if (unwritable !== undefined) {
    throw new JetliteError('REPLICA', `bucket ${name} at ${link.url} takes no objects: ${unwritable}`, {
      hint: `Name the bucket that it copies, or make one (jetlite bucket create); see nats stream info ${STREAM_PREFIX}${name}.`,
    });
  }
  if (dangers.length === 0) return;
  throw new JetliteError(
    'REPLICA',
    `bucket ${name} at ${link.url} can lose parts of a replica: ${dangers.join(', ')}`,
    {
      hint: `Make a bucket without these settings (jetlite bucket create), or change them: nats stream edit ${STREAM_PREFIX}${name}. Or insist with --allow-unsafe-bucket.`,
    },
  );
}

/** Which settings of a stream let its server drop messages that a replica needs. */
function dangersOf(config: StreamConfig): string[] {
  const dangers: string[] = [];
  const limited = config.max_bytes > 0 || config.max_msgs > 0;
  if (config.retention !== RetentionPolicy.Limits)
    dangers.push(`messages go as soon as somebody has read them (retention ${config.retention})`);
  if (config.max_age > 0)
    dangers.push(`objects expire after ${config.max_age / NANOS_PER_MS / 1000} s (max_age)`);
  if (config.discard === DiscardPolicy.Old && limited) {
    dangers.push('at its limit the oldest messages are dropped (discard old)');
  }
  if (config.max_msgs_per_subject > 0) dangers.push('it keeps few messages a subject (max_msgs_per_subject)');
  if (config.no_ack) dangers.push('nothing is acknowledged (no_ack)');
  if (!config.allow_rollup_hdrs) dangers.push('objects cannot be replaced or removed (rollup is off)');
  if (config.subject_transform) dangers.push('subjects are changed on their way in (subject_transform)');
  // Servers from 2.12 on; the client does not know of it.
  if ((config as { persist_mode?: string }).persist_mode === 'async') {
    dangers.push('it acknowledges what it has not written yet (persist_mode async)');
  }
  return dangers;
}

/** Why nothing can be put into a stream as into a bucket; undefined if it can. */
function unwritableBy({ name, mirror, subjects = [] }: StreamConfig): string | undefined {
  if (mirror) return `it is a mirror of the stream ${printable(mirror.name)}`;
  const bucket = name.slice(STREAM_PREFIX.length);
  const missing = ['C', 'M']
    .map((kind) => `$O.${bucket}.${kind}.>`)
    .find((wanted) => !isCovered(wanted, subjects));
  return missing && `its stream does not take ${missing} (subjects)`;
}

/** Whether one of the subjects takes all that `wanted` stands for, which ends in `>`. */
function isCovered(wanted: string, subjects: readonly string[]): boolean {
  const words = wanted.split('.');
  return subjects.some((subject) => {
    const pattern = subject.split('.');
    const at = pattern.findIndex((word, i) => word !== words[i] && word !== '*');
    return at === -1 ? pattern.length === words.length && pattern.at(-1) === '>' : pattern[at] === '>';
  });
}

/** Creates a bucket as every NATS client makes it. Throws REPLICA, also if one with other settings exists. */
export async function createBucket(
  link: NatsLink,
  name: string,
  settings: BucketSettings = {},
): Promise<BucketInfo> {
  const stream = streamName(name);
  const manager = await managerOf(link, name);
  const config: Partial<StreamConfig> = {
    name: stream,
    subjects: [`$O.${name}.C.>`, `$O.${name}.M.>`],
    retention: RetentionPolicy.Limits,
    discard: DiscardPolicy.New,
    allow_rollup_hdrs: true,
    allow_direct: true,
    num_replicas: settings.replicas ?? 1,
    storage: settings.storage === 'memory' ? StorageType.Memory : StorageType.File,
    max_bytes: settings.maxBytes ?? -1,
    max_age: (settings.ttlMs ?? 0) * NANOS_PER_MS,
    // Servers before 2.10 know no compression, and their clients refuse to mention it.
    ...(settings.compression ? { compression: StoreCompression.S2 } : {}),
    ...(settings.description === undefined ? {} : { description: settings.description }),
  };
  try {
    return infoOf(await manager.streams.add(config));
  } catch (error) {
    // The client refuses by itself what the server is too old for, with an error of no class.
    const needed = /requires server (\S+)/.exec((error as Error).message)?.[1];
    if (needed !== undefined) {
      const message = `cannot create the bucket: a setting needs a newer server, ${needed} (bucket ${name}, ${link.url})`;
      throw new JetliteError('REPLICA', message, { hint: 'Leave out compression.', cause: error });
    }
    throw requestError(error, 'create the bucket', name, link.url);
  }
}

/** Throws REPLICA if there is no such bucket. */
export async function bucketInfo(link: NatsLink, name: string): Promise<BucketInfo> {
  return infoOf(await streamOf(await managerOf(link, name), link, name));
}

/** All buckets of the account, by name. */
export async function listBuckets(link: NatsLink): Promise<BucketInfo[]> {
  const manager = await managerOf(link, '*');
  const found: BucketInfo[] = [];
  try {
    for await (const stream of manager.streams.list('$O.>')) {
      if (stream.config.name.startsWith(STREAM_PREFIX)) found.push(infoOf(stream));
    }
  } catch (error) {
    throw requestError(error, 'list the buckets', '*', link.url);
  }
  return found.sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** Deletes a bucket and everything in it. Throws REPLICA if there is none. */
export async function deleteBucket(link: NatsLink, name: string): Promise<void> {
  const manager = await managerOf(link, name);
  try {
    await manager.streams.delete(streamName(name));
  } catch (error) {
    throw requestError(error, 'delete the bucket', name, link.url);
  }
}

/** The present by the server's clock, ms since the epoch; undefined where it does not say (before 2.10). */
export async function serverClock({ link, manager, stream, name }: Bucket): Promise<number | undefined> {
  try {
    const { ts } = (await link.ask(() => manager.streams.info(stream))) as StreamInfo & { ts?: string };
    const now = Date.parse(`${ts}`);
    return Number.isNaN(now) ? undefined : now;
  } catch (error) {
    throw requestError(error, 'ask for the time', name, link.url);
  }
}

function streamName(bucket: string): string {
  if (/^[A-Za-z0-9_-]+$/.test(bucket)) return `${STREAM_PREFIX}${bucket}`;
  throw new JetliteError('USAGE', `${JSON.stringify(bucket)} cannot name a bucket`, {
    hint: 'Use letters, digits, - and _.',
  });
}

async function managerOf(link: NatsLink, name: string): Promise<JetStreamManager> {
  try {
    return await link.connection.jetstreamManager({
      timeout: link.timeoutMs,
      checkAPI: false,
    });
  } catch (error) {
    throw requestError(error, 'use JetStream', name, link.url);
  }
}

async function streamOf(manager: JetStreamManager, link: NatsLink, name: string): Promise<StreamInfo> {
  try {
    return await link.ask(() => manager.streams.info(streamName(name)));
  } catch (error) {
    if (apiCode(error) === Api.STREAM_NOT_FOUND) throw missingBucket(name, link.url, error);
    // In a cluster another server may have it, and no leader just now.
    const { jetstream, cluster } = link.connection.info ?? {};
    if ((error as NatsError).code === ErrorCode.NoResponders && !jetstream && !cluster) {
      throw jetStreamOff(name, link.url, error);
    }
    throw requestError(error, 'open the bucket', name, link.url);
  }
}

function infoOf({ config, state, created }: StreamInfo): BucketInfo {
  const unwritable = unwritableBy(config);
  return {
    name: config.name.slice(STREAM_PREFIX.length),
    description: config.description ?? '',
    replicas: config.num_replicas,
    storage: config.storage,
    maxBytes: config.max_bytes,
    ttlMs: config.max_age / NANOS_PER_MS,
    compression: config.compression === StoreCompression.S2,
    bytes: state.bytes,
    messages: state.messages,
    createdMs: Date.parse(`${created}`),
    dangers: [
      ...dangersOf(config),
      ...(unwritable === undefined ? [] : [`nothing can be put into it: ${unwritable}`]),
    ],
  };
}
