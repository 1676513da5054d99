/**
 * The configuration file: found, expanded, read and checked. Litestream's files are understood; keys of theirs that have
 * no meaning here are accepted with a warning, keys nobody knows are refused.
 */

import { readFile, stat } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import { JetliteError } from '../lib/errors.js';
import type { UpkeepSettings } from '../lib/jobs/tidy/tidy.js';
import { isMistypedAddress } from '../lib/replica/nats/address.js';
import { readLevels, readSnapshot } from './config-levels.js';
import { ConfigMap, type Warn } from './config-map.js';
import { type ReplicaConfig, readReplica } from './config-replica.js';
import { type ListenAddress, parseListenAddress } from './listen-address.js';
import { type LogLevel, type LogType, parseLogLevel } from './log.js';
import { type Expanded, parseYaml, type UnsetVariable } from './yaml.js';

export interface DatabaseConfig {
  /** Absolute. */
  readonly path: string;
  readonly replica: ReplicaConfig;
  readonly restoreIfDbNotExists: boolean;
  /** Merged levels, snapshots, retention: its own, else those for all. */
  readonly levels: UpkeepSettings;
  /** Largest size of what waits on disk for a replica that is away, bytes; undefined for the default. */
  readonly spoolMaxBytes: number | undefined;
  /** How often the replica is asked what it still has, milliseconds; undefined for the default. */
  readonly auditIntervalMs: number | undefined;
  /** How long uploading may go on when told to stop, milliseconds; undefined for the default. */
  readonly stopTimeoutMs: number | undefined;
}

export interface Config {
  /** The file it came from. */
  readonly file: string;
  readonly databases: readonly DatabaseConfig[];
  /** Merged levels, snapshots, retention: for all databases. */
  readonly levels: UpkeepSettings;
  readonly logging: { readonly level?: LogLevel; readonly type?: LogType };
  /** A program to run beside `replicate`. */
  readonly exec: string | undefined;
  /** Where metrics are served. */
  readonly addr: ListenAddress | undefined;
  /** One line each, to be shown once. */
  readonly warnings: readonly string[];
}

type Environment = Readonly<Record<string, string | undefined>>;

const VARIABLE = /\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))/g;
const DEFAULT_FILES = ['/etc/jetlite.yml', '/etc/litestream.yml'];

/** Where a configuration is looked for when no flag names one, the first that is there. */
function candidates(env: Environment): { file: string; named: string | undefined }[] {
  const named = ['JETLITE_CONFIG', 'LITESTREAM_CONFIG'].flatMap((variable) => {
    const file = env[variable];
    return file ? [{ file, named: variable }] : [];
  });
  return [...named, ...DEFAULT_FILES.map((file) => ({ file, named: undefined }))];
}

/** The file that `--config` or the environment names, else a default one that exists; undefined if there is none. */
export async function findConfig(flag: string | undefined, env: Environment): Promise<string | undefined> {
  if (flag !== undefined) return flag;
  for (const { file, named } of candidates(env)) {
    // A file that someone named must be there; reading it will say so.
    if (named !== undefined || (await isFile(file))) return file;
  }
  return undefined;
}

/** For messages: every place that was looked at. */
export function configPlaces(env: Environment): string {
  return ['--config', '$JETLITE_CONFIG', '$LITESTREAM_CONFIG', ...DEFAULT_FILES]
    .filter((place) => !place.startsWith('$') || env[place.slice(1)] === undefined)
    .join(', ');
}

/** Reads and checks a file. Throws USAGE, naming file, line and key. */
export async function loadConfig(file: string, expandEnv: boolean, env: Environment): Promise<Config> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (error) {
    const reason = (error as NodeJS.ErrnoException).code === 'ENOENT' ? 'it does not exist' : String(error);
    throw new JetliteError('USAGE', `cannot read the configuration ${file}: ${reason}`, { cause: error });
  }
  return parseConfig(text, file, expandEnv ? env : undefined);
}

/** `env`: what $VAR and ${VAR} in values stand for; undefined to leave them as they are. */
export function parseConfig(text: string, file: string, env: Environment | undefined): Config {
  const warnings: string[] = [];
  const warn: Warn = (warning) => warnings.push(warning);
  const expand = (value: string, line: number): Expanded => {
    const expanded = env === undefined ? { text: value, unset: [] } : expandVariables(value, env);
    for (const { shown } of expanded.unset)
      warn(`${file}:${line}: ${shown} is not set; it stands for nothing`);
    return expanded;
  };
  const root = parseYaml(text, file, expand);
  if (root === undefined)
    throw new JetliteError('USAGE', `${file}: the file is empty, expected at least dbs`);
  const map = new ConfigMap(file, '', root, warn);

  const levels = readLevels(map);
  const logging = readLogging(map.map('logging'));
  const exec = map.text('exec');
  const spoolMaxBytes = map.size('spool-max-bytes');
  const auditIntervalMs = map.duration('audit-interval');
  const stopTimeoutMs = map.duration('shutdown-sync-timeout');
  const addr = readAddr(map);
  const databases = (map.maps('dbs') ?? []).flatMap((section) => readDatabase(section, levels));
  for (const [key, why] of Object.entries(IGNORED)) map.ignore(key, why);
  map.end();
  refuseTwins(databases);
  return {
    file,
    databases: databases.map(({ database }) => ({
      ...database,
      spoolMaxBytes,
      auditIntervalMs,
      stopTimeoutMs,
    })),
    levels,
    logging,
    exec,
    addr,
    warnings,
  };
}

const NOT_YET = 'this version of Jetlite cannot do it yet';

/** What Litestream's files can say at their top and Jetlite does otherwise or not at all. */
const IGNORED = {
  socket: 'Jetlite has no control socket',
  'mcp-addr': 'Jetlite has no MCP server',
  'heartbeat-url': 'Jetlite sends no heartbeats',
  'heartbeat-interval': 'Jetlite sends no heartbeats',
  validation: 'run `jetlite verify` instead',
  'verify-compaction': 'merged files are always verified',
  'l0-retention-check-interval': 'Jetlite chooses when to look',
  'shutdown-sync-interval': 'what could not be uploaded is tried again at once',
  'access-key-id': 'it is for S3',
  'secret-access-key': 'it is for S3',
} as const;

/** The same for a database. */
const IGNORED_OF_DATABASE = {
  'meta-path': 'Jetlite keeps its state in a folder of its own beside the database',
  'meta-dir': 'Jetlite keeps its state in a folder of its own beside the database',
  'monitor-interval': 'changes are noticed as they happen',
  'checkpoint-interval': 'Jetlite never checkpoints',
  'min-checkpoint-page-count': 'Jetlite never checkpoints',
  'max-checkpoint-page-count': 'Jetlite never checkpoints',
  'truncate-page-n': 'Jetlite never checkpoints',
  'busy-timeout': 'Jetlite takes no locks',
} as const;

function readLogging(section: ConfigMap | undefined): Config['logging'] {
  if (section === undefined) return {};
  const name = section.text('level');
  const level = name === undefined ? undefined : parseLogLevel(name);
  if (name !== undefined && level === undefined) {
    section.refuse('level', `expected debug, info, warn or error, found "${name}"`);
  }
  const type = section.oneOf('type', ['text', 'json']);
  if (section.flag('stderr') === false) section.ignore('stderr', 'the log always goes to stderr');
  section.ignore('source', 'the log does not name source files');
  section.end();
  return { ...(level && { level }), ...(type && { type }) };
}

function readAddr(map: ConfigMap): ListenAddress | undefined {
  const addr = map.text('addr');
  if (addr === undefined || addr === '') return undefined;
  try {
    return parseListenAddress(addr);
  } catch (error) {
    return map.refuse('addr', (error as Error).message);
  }
}

interface ReadDatabase {
  readonly section: ConfigMap;
  readonly database: Omit<DatabaseConfig, 'spoolMaxBytes' | 'auditIntervalMs' | 'stopTimeoutMs'>;
}

/** One entry of `dbs`. A folder of databases is checked, but gives none yet. */
function readDatabase(section: ConfigMap, forAll: UpkeepSettings): ReadDatabase[] {
  const path = section.text('path');
  const dir = section.text('dir');
  if ((path === undefined) === (dir === undefined))
    section.refuseAll('expected either path or dir', ['path', 'dir']);
  for (const key of ['path', 'dir']) {
    const text = section.text(key) ?? '';
    if (/^[a-z][a-z0-9+.-]*:\/\//i.test(text) || isMistypedAddress(text))
      section.refuse(key, 'expected a path of this machine, found a URL');
  }
  const pattern = section.text('pattern');
  section.flag('recursive');
  section.flag('watch');
  if (dir === undefined) {
    for (const key of ['pattern', 'recursive', 'watch']) {
      if (section.has(key)) section.refuse(key, 'only a folder of databases (dir) can have this');
    }
  } else if (pattern === undefined) section.refuse('dir', 'needs a pattern beside it, such as "*.db"');
  const replica = readReplica(theReplica(section));
  const restoreIfDbNotExists = section.flag('restore-if-db-not-exists') ?? false;
  const levels = { ...forAll, ...readSnapshot(section) };
  for (const [key, why] of Object.entries(IGNORED_OF_DATABASE)) section.ignore(key, why);
  section.ignore('dir', `${NOT_YET}; the databases in it are NOT replicated`);
  section.end();
  if (path === undefined) return [];
  return [{ section, database: { path: expandHome(path), replica, restoreIfDbNotExists, levels } }];
}

/** `replica`, or Litestream's older `replicas` with one entry. */
function theReplica(section: ConfigMap): ConfigMap {
  const single = section.map('replica');
  const list = section.maps('replicas');
  if (single !== undefined && list !== undefined)
    section.refuse('replicas', 'there is a replica already; leave one out');
  if (list !== undefined && list.length !== 1) {
    section.refuse('replicas', `a database has one replica, found ${list.length}`);
  }
  return single ?? list?.[0] ?? section.refuseAll('expected a replica', ['replica']);
}

/** Two databases in one replica, or one database twice, would destroy each other's chain. */
function refuseTwins(read: readonly ReadDatabase[]): void {
  const paths = new Map<string, ConfigMap>();
  const addresses = new Map<string, ConfigMap>();
  for (const { section, database } of read) {
    const address = JSON.stringify(database.replica.address);
    const samePath = paths.get(database.path);
    const sameAddress = addresses.get(address);
    if (samePath !== undefined) section.refuse('path', `stands in line ${samePath.line} already`);
    if (sameAddress !== undefined) {
      section.refuse(
        'replica',
        `goes where the database in line ${sameAddress.line} goes; each needs its own prefix`,
      );
    }
    paths.set(database.path, section);
    addresses.set(address, section);
  }
}

/** The database of a configuration that `path` names. */
export function findDatabase(config: Config, path: string): DatabaseConfig | undefined {
  const wanted = expandHome(path);
  return config.databases.find((database) => database.path === wanted);
}

function expandHome(path: string): string {
  return resolve(path.startsWith('~/') ? join(homedir(), path.slice(2)) : path);
}

/** $VAR and ${VAR}; a dollar sign before anything else stays one. */
function expandVariables(value: string, env: Environment): Expanded {
  const unset: UnsetVariable[] = [];
  const text = value.replace(VARIABLE, (whole, braced, bare, offset: number) => {
    const name = (braced ?? bare) as string;
    const found = env[name];
    const rest = value.slice(offset + whole.length);
    // Anything else may be a password with a dollar sign in it.
    const isFolder = /(?:^|\/)$/.test(value.slice(0, offset)) && /^\/[^@]*$/.test(rest);
    const isNamed = braced !== undefined || whole === value || isFolder;
    const shown = isNamed
      ? `the environment variable ${name}`
      : 'an environment variable (put its name in braces)';
    if (found === undefined) unset.push({ shown, rest });
    return found ?? '';
  });
  return { text, unset };
}

async function isFile(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isFile();
  } catch {
    return false;
  }
}
