import { JetliteError } from '../../lib/errors.js';
import type { Status } from '../../lib/jobs/status.js';
import { formatTxid } from '../../lib/ltx/header.js';
import { type Context, defineCommand, EXIT_DONE, EXIT_FAILED } from '../command.js';
import { describeFailure } from '../failure.js';
import { formatBytes, formatElapsed, formatMoment, formatTable } from '../format.js';
import { configOptions, jsonOption, stateDirOption } from '../options.js';
import { type ConfigArgs, requireConfig, resolveSource, type Source, withReplica } from '../source.js';

interface StatusArgs extends ConfigArgs {
  readonly source: string | undefined;
  readonly stateDir: string | undefined;
  readonly watch: boolean;
  readonly json: boolean;
}

/** `jetlite status [DB|REPLICA]`: where databases and their replicas stand. */
export const statusCommand = defineCommand({
  command: 'status [source]',
  describe: 'Show where databases and their replicas stand',
  options: (yargs) =>
    stateDirOption(jsonOption(configOptions(yargs)))
      .positional('source', {
        type: 'string',
        describe: 'Database, or URL or folder of a replica [every database of the configuration]',
      })
      .option('watch', {
        type: 'boolean',
        default: false,
        describe: 'Show it again whenever a replica changes, until stopped; with --json one line each',
      }),
  run: async (args: StatusArgs, context) => {
    const sources = await readSources(args, context);
    return args.watch ? watchAll(sources, args, context) : showAll(sources, args, context);
  },
});

async function readSources(args: StatusArgs, context: Context): Promise<readonly Source[]> {
  if (args.source !== undefined) return [await resolveSource(args.source, args, context)];
  const config = await requireConfig(args, context);
  if (args.stateDir !== undefined && config.databases.length > 1) {
    throw new JetliteError('USAGE', '--state-dir is for one database, the configuration names several');
  }
  return config.databases.map(({ path, replica }) => ({
    address: replica.address,
    nats: replica.nats,
    database: path,
  }));
}

/** One table, or one document with all of them; a replica that cannot be asked is reported and the others are shown. */
async function showAll(sources: readonly Source[], args: StatusArgs, context: Context): Promise<number> {
  const { status } = await import('../../lib/jobs/status.js');
  const found = new Map<Source, Status>();
  const exitCode = await each(sources, context, async (source) => {
    await withReplica(source, context, async (replica) => {
      found.set(source, await status({ replica, database: source.database, stateDir: args.stateDir }));
    });
  });
  // In the order of the configuration, whoever answered first.
  const shown = sources.flatMap((source) => {
    const one = found.get(source);
    return one === undefined ? [] : [{ source, status: one }];
  });
  if (args.json) context.terminal.json(shown.map(asJson));
  else if (shown.length > 0) context.terminal.result(formatTable(COLUMNS, shown.map(asRow)));
  return exitCode;
}

async function watchAll(sources: readonly Source[], args: StatusArgs, context: Context): Promise<number> {
  const { watchStatus } = await import('../../lib/jobs/status.js');
  return each(sources, context, (source) =>
    withReplica(source, context, async (replica) => {
      const options = { replica, database: source.database, stateDir: args.stateDir };
      for await (const now of watchStatus(options, context.signal)) {
        const shown = { source, status: now };
        context.terminal.result(args.json ? JSON.stringify(asJson(shown)) : asLine(shown));
      }
    }),
  );
}

/** A single source's failure is the command's. */
async function each(
  sources: readonly Source[],
  context: Context,
  work: (source: Source) => Promise<void>,
): Promise<number> {
  if (sources.length === 1) {
    await work(sources[0]);
    return EXIT_DONE;
  }
  const ends = await Promise.allSettled(sources.map(work));
  for (const [i, end] of ends.entries()) {
    if (end.status === 'fulfilled') continue;
    const { lines } = describeFailure(end.reason, context.log.shows('debug'));
    context.log.write('error', lines.join(' '), { database: sources[i].database ?? '' });
  }
  return ends.some(({ status }) => status === 'rejected') ? EXIT_FAILED : EXIT_DONE;
}

interface Shown {
  readonly source: Source;
  readonly status: Status;
}

const COLUMNS = ['database', 'size', 'local', 'replica', 'lag', 'files', 'bytes', 'snapshot'];

function asRow({ source, status: { database, replica, lagMs } }: Shown): string[] {
  const snapshotAge = replica.snapshotMs === undefined ? '-' : formatElapsed(age(replica.snapshotMs));
  const levels = replica.levels.map(({ level, files }) => `${level}:${files}`).join(' ');
  return [
    source.database ?? replica.url,
    database === undefined ? '-' : formatBytes(database.bytes + database.walBytes),
    database?.txid === undefined ? '-' : formatTxid(database.txid),
    replica.txid === 0n ? 'empty' : formatTxid(replica.txid),
    lagMs === undefined || replica.txid === 0n ? '-' : formatElapsed(lagMs),
    levels === '' ? '-' : levels,
    formatBytes(replica.bytes),
    snapshotAge,
  ];
}

function asLine(now: Shown): string {
  const row = asRow(now);
  const shown = COLUMNS.slice(1).map((column, i) => `${column} ${row[i + 1]}`);
  return `${formatMoment(Date.now())}  ${row[0]}  ${shown.join('  ')}`;
}

function age(ms: number): number {
  return Math.max(0, Date.now() - ms);
}

function asJson({ source, status: { database, replica, lagMs } }: Shown): object {
  return {
    database: source.database ?? null,
    size: database?.bytes ?? null,
    wal_size: database?.walBytes ?? null,
    changed: database === undefined ? null : formatMoment(Math.floor(database.changedMs)),
    local_txid: database?.txid === undefined ? null : formatTxid(database.txid),
    replica: replica.url,
    replica_txid: replica.txid === 0n ? null : formatTxid(replica.txid),
    timestamp: replica.txid === 0n ? null : formatMoment(replica.timestampMs),
    lag_ms: lagMs === undefined || replica.txid === 0n ? null : Math.floor(lagMs),
    files: replica.files,
    replica_size: replica.bytes,
    levels: replica.levels,
    snapshot: replica.snapshotMs === undefined ? null : formatMoment(replica.snapshotMs),
  };
}
