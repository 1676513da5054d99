import { existsSync } from 'node:fs';
import { JetliteError } from '../../lib/errors.js';
import type { RestorePlan } from '../../lib/jobs/plan.js';
import type { RestoreResult } from '../../lib/jobs/restore.js';
import { formatTxid, ltxFileName } from '../../lib/ltx/header.js';
import { ltxPath } from '../../lib/replica/names.js';
import type { LtxFileInfo } from '../../lib/replica/replica.js';
import { type Context, defineCommand, EXIT_DONE } from '../command.js';
import { followReplica } from '../follow.js';
import { formatBytes, formatElapsed, formatMoment, formatTable } from '../format.js';
import {
  jsonOption,
  readChoice,
  readMode,
  readStateArgs,
  type StateArgs,
  sourceOptions,
  stateOptions,
} from '../options.js';
import { type ConfigArgs, resolveSource, withAwaitedReplica, withReplica } from '../source.js';

interface RestoreArgs extends ConfigArgs, StateArgs {
  readonly source: string;
  readonly output: string | undefined;
  readonly ifDbNotExists: boolean;
  readonly ifReplicaExists: boolean;
  readonly force: boolean;
  readonly mode: string | undefined;
  readonly dryRun: boolean;
  readonly integrityCheck: string;
  readonly follow: boolean;
  readonly json: boolean;
}

/** `jetlite restore DB|REPLICA`: rebuilds a database. */
export const restoreCommand = defineCommand({
  command: 'restore <source>',
  describe: 'Rebuild a database from its replica',
  options: (yargs) =>
    jsonOption(sourceOptions(stateOptions(yargs)))
      .option('output', {
        alias: 'o',
        type: 'string',
        requiresArg: true,
        describe: 'Path of the database to make [the database named]',
      })
      .option('if-db-not-exists', {
        type: 'boolean',
        default: false,
        describe: 'Do nothing if the output exists',
      })
      .option('if-replica-exists', {
        type: 'boolean',
        default: false,
        describe: 'Do nothing if there is no replica',
      })
      .option('force', { type: 'boolean', default: false, describe: 'Replace a database at the output' })
      .option('mode', {
        type: 'string',
        requiresArg: true,
        describe: 'Permissions of the database made [600]; for others to read a copy: 644',
      })
      .option('dry-run', { type: 'boolean', default: false, describe: 'Print the plan, write nothing' })
      .option('integrity-check', {
        type: 'string',
        default: 'none',
        requiresArg: true,
        describe: 'Let SQLite check the result before it appears: none, quick or full',
      })
      .option('follow', {
        alias: 'f',
        type: 'boolean',
        default: false,
        describe: 'Keep the database up to date until stopped, for others to read',
      }),
  run: async (args: RestoreArgs, context) => {
    const state = readStateArgs(args);
    const integrityCheck = readChoice('integrity-check', args.integrityCheck, ['none', 'quick', 'full']);
    const mode = readMode('mode', args.mode);
    // A copy says itself whose it is, and waits for that replica where its folder is not mounted yet.
    const goesOn = args.follow && args.output !== undefined && existsSync(args.output);
    const source = await resolveSource(args.source, args, context, args.ifReplicaExists || goesOn);
    const output = args.output ?? source.database;
    if (output === undefined) {
      throw new JetliteError('USAGE', 'where should the restored database go?', {
        hint: 'Name a file with -o.',
      });
    }
    if (args.follow) {
      expectNewest(args);
      const followed = { ...args, output, mode, integrityCheck, parallelism: state.parallelism };
      return withAwaitedReplica(source, context, (replica) => followReplica(replica, followed, context));
    }
    return withReplica(source, context, async (replica) => {
      const { restore } = await import('../../lib/jobs/restore.js');
      const progress = context.terminal.progress();
      const result = await restore({
        replica,
        output,
        ...state,
        force: args.force,
        mode,
        ifDbNotExists: args.ifDbNotExists,
        ifReplicaExists: args.ifReplicaExists,
        dryRun: args.dryRun,
        integrityCheck,
        signal: context.signal,
        onProgress: ({ phase, bytes, totalBytes }) => progress.update(phase, bytes, totalBytes),
      }).finally(() => progress.end());
      show(result, replica.url, args, context);
      return EXIT_DONE;
    });
  },
});

/** A copy that follows stands at the newest state, and is made or gone on with: nothing else can be wished. */
function expectNewest(args: RestoreArgs): void {
  const { txid, timestamp, dryRun, ifDbNotExists, ifReplicaExists } = args;
  const wishes = {
    '--txid': txid !== undefined,
    '--timestamp': timestamp !== undefined,
    '--dry-run': dryRun,
    '--if-db-not-exists': ifDbNotExists,
    '--if-replica-exists': ifReplicaExists,
  };
  const found = Object.entries(wishes).find(([, isGiven]) => isGiven);
  if (found === undefined) return;
  throw new JetliteError('USAGE', `--follow and ${found[0]} cannot be given together`, {
    hint: 'Leave one out.',
  });
}

function show(result: RestoreResult, replica: string, args: RestoreArgs, context: Context): void {
  const { terminal, log } = context;
  if (result.kind === 'restored') {
    for (const path of result.removed)
      log.write('warn', `removed ${path}, which belonged to the database before`);
    for (const { message } of result.damaged) log.write('warn', message);
  }
  if (args.json) terminal.json(asJson(result, replica, args));
  else terminal.result(asText(result, replica));
}

function asText(result: RestoreResult, replica: string): string {
  switch (result.kind) {
    case 'skipped':
      return result.reason === 'no-replica'
        ? `${replica} holds no files; nothing was restored`
        : `${result.output} exists; nothing was restored`;
    case 'planned':
      return planText(result.plan, replica, result.output);
    case 'restored': {
      const { pageCount, pageSize, fileCount } = result;
      const size = `${pageCount} pages (${formatBytes(pageCount * pageSize)})`;
      const files = fileCount === 1 ? '1 file' : `${fileCount} files`;
      return (
        `restored ${result.output} to TXID ${formatTxid(result.txid)} of ${formatMoment(result.timestampMs)}: ` +
        `${size} from ${files} of ${replica} in ${formatElapsed(result.durationMs)}`
      );
    }
  }
}

function planText(plan: RestorePlan, replica: string, output: string): string {
  const rows = plan.files.map((file) => [
    String(file.level),
    ltxFileName(file.minTxid, file.maxTxid),
    String(file.size),
    formatMoment(file.timestampMs),
  ]);
  const head = `${replica} to ${output}: TXID ${formatTxid(plan.txid)}, ${formatBytes(plan.bytes)} to read`;
  return `${head}\n\n${formatTable(['level', 'file', 'size', 'timestamp'], rows)}`;
}

/** The keys are Litestream's, where it has them. */
function asJson(result: RestoreResult, replica: string, args: RestoreArgs): object {
  switch (result.kind) {
    case 'skipped':
      return { db_path: result.output, replica, restored: false, reason: result.reason };
    case 'planned':
      return {
        source: replica,
        target_path: result.output,
        max_txid: result.plan.txid,
        bytes: result.plan.bytes,
        files: result.plan.files.map(fileAsJson),
      };
    case 'restored':
      return {
        db_path: result.output,
        replica,
        restored: true,
        txid: result.txid,
        timestamp: formatMoment(result.timestampMs),
        page_size: result.pageSize,
        page_count: result.pageCount,
        files: result.fileCount,
        bytes_read: result.bytesRead,
        removed: result.removed,
        damaged: result.damaged.map(({ file, message }) => ({ file: ltxPath(file), message })),
        integrity_check: args.integrityCheck,
        duration_ms: Math.round(result.durationMs),
      };
  }
}

function fileAsJson(file: LtxFileInfo): object {
  return {
    level: file.level,
    name: ltxFileName(file.minTxid, file.maxTxid),
    min_txid: file.minTxid,
    max_txid: file.maxTxid,
    size: file.size,
    timestamp: formatMoment(file.timestampMs),
  };
}
