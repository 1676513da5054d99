import { JetliteError } from '../../lib/errors.js';
import { formatTxid } from '../../lib/ltx/header.js';
import { type Context, defineCommand, EXIT_DONE } from '../command.js';
import { formatBytes, formatElapsed } from '../format.js';
import { configOptions, jsonOption, type WriterArgs, writerOptions } from '../options.js';
import { type ConfigArgs, configuredSource, defaultReplica, type Opening, withReplica } from '../source.js';

interface BackupArgs extends WriterArgs, ConfigArgs {
  readonly db: string;
  readonly replica: string | undefined;
  readonly json: boolean;
}

/** `jetlite backup DB [REPLICA]`: brings a replica up to the database's present state and ends. */
export const backupCommand = defineCommand({
  command: 'backup <db> [replica]',
  describe: 'Bring a replica up to date once',
  options: (yargs) =>
    writerOptions(jsonOption(configOptions(yargs)))
      .positional('db', { type: 'string', demandOption: true, describe: 'Path of the database' })
      .positional('replica', {
        type: 'string',
        describe: 'URL or folder [that of --config, else the folder DB-backup beside DB]',
      }),
  run: async (args: BackupArgs, context) => {
    const { db, allowUnsafeBucket } = args;
    const target = await readTarget(args, context);
    return withReplica({ ...target, allowUnsafeBucket }, context, async (replica) => {
      const { backup } = await import('../../lib/jobs/backup.js');
      const progress = context.terminal.progress();
      const result = await backup({
        database: db,
        replica,
        allowOtherDatabase: args.allowOtherDatabase,
        signal: context.signal,
        ...(args.stateDir !== undefined && { stateDir: args.stateDir }),
        onProgress: ({ phase, bytes, totalBytes }) => progress.update(phase, bytes, totalBytes),
        onEvent: ({ level, message }) => context.log.write(level, message),
      }).finally(() => progress.end());
      if (args.json) context.terminal.json(asJson(db, replica.url, result));
      else context.terminal.result(asText(db, replica.url, result));
      return EXIT_DONE;
    });
  },
});

async function readTarget(args: BackupArgs, context: Context): Promise<Opening> {
  const { db, replica, config } = args;
  if (config === undefined) return { address: replica ?? defaultReplica(db), nats: {} };
  if (replica === undefined) return configuredSource(db, args, context);
  throw new JetliteError('USAGE', 'expected a replica or --config, found both');
}

type Result = Awaited<ReturnType<typeof import('../../lib/jobs/backup.js')['backup']>>;

function asJson(database: string, replica: string, result: Result): object {
  return {
    database,
    replica,
    kind: result.kind,
    txid: result.txid,
    page_size: result.pageSize,
    page_count: result.pageCount,
    pages_written: result.pagesWritten,
    bytes_written: result.bytesWritten,
    duration_ms: Math.round(result.durationMs),
  };
}

function asText(database: string, replica: string, result: Result): string {
  const { kind, txid, pageSize, pageCount, pagesWritten, bytesWritten } = result;
  const took = formatElapsed(result.durationMs);
  if (kind === 'unchanged')
    return `${database}: nothing to back up, ${replica} is at TXID ${formatTxid(txid)} (${took})`;
  const pages = `${pagesWritten} of ${pageCount} pages (${formatBytes(pagesWritten * pageSize)})`;
  return `${database}: ${kind}, ${pages}, ${formatBytes(bytesWritten)} written to ${replica} as TXID ${formatTxid(txid)} in ${took}`;
}
