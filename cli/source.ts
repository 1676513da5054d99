/** What a user means by `DB|REPLICA`, and opening it. */

import { stat } from 'node:fs/promises';
import { resolve } from 'node:path';
import { JetliteError } from '../lib/errors.js';
import type { UpkeepSettings } from '../lib/jobs/tidy/tidy.js';
import type { NatsOptions } from '../lib/replica/nats/connect.js';
import type { ReplicaAddress } from '../lib/replica/open.js';
import type { Replica } from '../lib/replica/replica.js';
import { type Context, EXIT_DONE } from './command.js';
import {
  type Config,
  configPlaces,
  type DatabaseConfig,
  findConfig,
  findDatabase,
  loadConfig,
} from './config.js';

export interface ConfigArgs {
  readonly config: string | undefined;
  readonly noExpandEnv: boolean;
}

/** Where a replica is. */
export interface Source {
  readonly address: string | ReplicaAddress;
  readonly nats: NatsOptions;
  /** The database it belongs to, where that is known. */
  readonly database: string | undefined;
  /** How its files are merged and kept, where the configuration names the database. */
  readonly levels?: UpkeepSettings;
}

/** An address for people: no credentials. */
export function showAddress(address: ReplicaAddress): string {
  if (address.kind === 'file') return address.folder;
  const { servers, bucket, prefix } = address;
  const scheme = servers?.tls ? 'tls' : 'nats';
  return `${scheme}://${servers?.hosts.join(',') ?? ''}/${bucket}${prefix === '' ? '' : `/${prefix}`}`;
}

/** The folder that `backup DB` fills when no replica is named. */
export function defaultReplica(database: string): string {
  return `${resolve(database)}-backup`;
}

/**
 * A URL or a folder is a replica. Any other path is a database: of the configuration, else one with a backup beside it.
 * Throws USAGE if it is none of these.
 */
export async function resolveSource(
  text: string,
  args: ConfigArgs,
  context: Context,
  mayBeMissing = false,
): Promise<Source> {
  const isReplica = /^[a-z][a-z0-9+.-]*:\/\//i.test(text) || (await isFolder(text));
  if (isReplica) return { address: text, nats: {}, database: undefined };
  const config = await readConfig(args, context);
  const configured = config && findDatabase(config, text);
  if (configured !== undefined) return sourceOf(configured);
  if (config !== undefined && args.config !== undefined) {
    throw unnamed(config, text);
  }
  const folder = defaultReplica(text);
  if (await isFolder(folder)) return { address: folder, nats: {}, database: resolve(text) };
  // A folder that is not there is a replica that does not exist yet, where that is expected.
  if (mayBeMissing) return { address: text, nats: {}, database: undefined };
  throw new JetliteError('USAGE', `${text} is neither a replica nor a database with one`, {
    hint: `Name a replica (nats://HOST/BUCKET or a folder), or a database that a configuration names; ${placesLooked(config)}.`,
  });
}

/** What the configuration says of a database, which it must name. Throws USAGE. */
export async function configuredSource(path: string, args: ConfigArgs, context: Context): Promise<Source> {
  const config = await requireConfig(args, context);
  const found = findDatabase(config, path);
  if (found === undefined) throw unnamed(config, path);
  return sourceOf(found);
}

function sourceOf({ replica, path, levels }: DatabaseConfig): Source {
  return { address: replica.address, nats: replica.nats, database: path, levels };
}

function unnamed(config: Config, path: string): JetliteError {
  return new JetliteError('USAGE', `${config.file} names no database ${resolve(path)}`, {
    hint: 'See the databases it names: jetlite databases.',
  });
}

function placesLooked(config: Config | undefined): string {
  return config === undefined
    ? `none was found at ${configPlaces(process.env)}`
    : `${config.file} does not name it`;
}

/** The configuration that flags, environment or default places give; undefined if there is none. Its warnings are shown. */
export async function readConfig(args: ConfigArgs, context: Context): Promise<Config | undefined> {
  const file = await findConfig(args.config, process.env);
  if (file === undefined) return undefined;
  const config = await loadConfig(file, !args.noExpandEnv, process.env);
  context.useLogging(config.logging);
  for (const warning of config.warnings) context.log.write('warn', warning);
  return config;
}

/** The same where there must be one. */
export async function requireConfig(args: ConfigArgs, context: Context): Promise<Config> {
  const config = await readConfig(args, context);
  if (config !== undefined) return config;
  throw new JetliteError('USAGE', 'there is no configuration file', {
    hint: `Looked at ${configPlaces(process.env)}. Name one with --config.`,
  });
}

/** What is to be opened. */
export interface Opening extends Pick<Source, 'address' | 'nats'> {
  /** Write even where the server may drop parts of a replica. */
  readonly allowUnsafeBucket?: boolean;
}

/** Opens a replica for as long as `work` takes. */
export async function withReplica<T>(
  source: Opening,
  context: Context,
  work: (replica: Replica) => Promise<T>,
): Promise<T> {
  const replica = await openSource(source, context);
  try {
    return await work(replica);
  } finally {
    await replica.close();
  }
}

/** The same as soon as somebody answers, which is waited for. EXIT_DONE if told to stop before. */
export async function withAwaitedReplica(
  source: Opening,
  context: Context,
  work: (replica: Replica) => Promise<number>,
): Promise<number> {
  const { awaitReplica } = await import('../lib/jobs/await-replica.js');
  const replica = await awaitReplica(() => openSource(source, context), {
    signal: context.signal,
    onEvent: ({ level, message }) => context.log.write(level, message),
  });
  if (replica === undefined) return EXIT_DONE;
  try {
    return await work(replica);
  } finally {
    await replica.close();
  }
}

/** Opens a replica; the caller closes it. */
export async function openSource(source: Opening, context: Context): Promise<Replica> {
  const { openReplica } = await import('../lib/replica/open.js');
  return openReplica(source.address, {
    nats: source.nats,
    allowUnsafeBucket: source.allowUnsafeBucket === true,
    onWarning: (message) => context.log.write('warn', message),
    signal: context.signal,
  });
}

async function isFolder(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isDirectory();
  } catch {
    return false;
  }
}
