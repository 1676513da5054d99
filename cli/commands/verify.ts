import { JetliteError } from '../../lib/errors.js';
import type { VerifyResult } from '../../lib/jobs/verify.js';
import { formatTxid } from '../../lib/ltx/header.js';
import { defineCommand, EXIT_DAMAGED, EXIT_DONE } from '../command.js';
import { formatBytes, formatElapsed, formatMoment } from '../format.js';
import {
  jsonOption,
  readDuration,
  readStateArgs,
  type StateArgs,
  sourceOptions,
  stateDirOption,
  stateOptions,
} from '../options.js';
import { type ConfigArgs, resolveSource, withReplica } from '../source.js';

interface VerifyArgs extends ConfigArgs, StateArgs {
  readonly source: string;
  readonly query: readonly string[];
  readonly expect: readonly string[];
  readonly against: string | undefined;
  readonly maxAge: string | undefined;
  readonly audit: boolean;
  readonly stateDir: string | undefined;
  readonly json: boolean;
}

/** `jetlite verify DB|REPLICA`: proves that a replica restores. Exit code 3 if it does not, or not to what is expected. */
export const verifyCommand = defineCommand({
  command: 'verify <source>',
  describe: 'Prove that a replica restores',
  options: (yargs) =>
    jsonOption(sourceOptions(stateDirOption(stateOptions(yargs))))
      .option('query', {
        type: 'string',
        array: true,
        default: [] as string[],
        requiresArg: true,
        describe: 'SQL to run on the restored database; may be repeated',
      })
      .option('expect', {
        type: 'string',
        array: true,
        default: [] as string[],
        requiresArg: true,
        describe: 'What the query before must answer, as SQLite’s shell prints it',
      })
      .option('against', {
        type: 'string',
        requiresArg: true,
        describe: 'A live, quiet database that must have the same pages',
      })
      .option('max-age', {
        type: 'string',
        requiresArg: true,
        describe: 'The newest state must not be older (5m, 24h)',
      })
      .option('audit', {
        type: 'boolean',
        default: false,
        describe: 'Only ask the store whether it still has all files: quick, reads no content',
      }),
  run: async (args: VerifyArgs, context) => {
    const state = readStateArgs(args);
    const maxAgeMs = readDuration('max-age', args.maxAge);
    const queries = pairQueries(args);
    if (args.audit) refuseBeside(args);
    else if (args.stateDir !== undefined)
      throw new JetliteError('USAGE', '--state-dir is for verify --audit');
    const source = await resolveSource(args.source, args, context);
    return withReplica(source, context, async (replica) => {
      if (args.audit) {
        const { verifyByAudit } = await import('./verify-audit.js');
        return verifyByAudit(replica, source.database, args, context);
      }
      const { verify } = await import('../../lib/jobs/verify.js');
      const progress = context.terminal.progress();
      const result = await verify({
        replica,
        ...state,
        queries,
        against: args.against,
        maxAgeMs,
        signal: context.signal,
        onProgress: ({ phase, bytes, totalBytes }) => progress.update(phase, bytes, totalBytes),
      }).finally(() => progress.end());
      if (args.json) context.terminal.json(asJson(result, replica.url));
      else context.terminal.result(asText(result, replica.url, args));
      return result.sound ? EXIT_DONE : EXIT_DAMAGED;
    });
  },
});

/** What needs a restored database cannot be had from metadata. */
function refuseBeside({ query, against, maxAge, txid, timestamp }: VerifyArgs): void {
  if (query.length === 0 && [against, maxAge, txid, timestamp].every((value) => value === undefined)) return;
  throw new JetliteError('USAGE', '--audit looks at metadata only: no other check can be given with it', {
    hint: 'Run verify twice, with and without --audit.',
  });
}

function pairQueries({ query, expect }: VerifyArgs): { sql: string; expect: string }[] {
  if (query.length !== expect.length) {
    throw new JetliteError(
      'USAGE',
      `expected one --expect for each --query, found ${query.length} of --query and ${expect.length} of --expect`,
    );
  }
  return query.map((sql, i) => ({ sql, expect: expect[i] }));
}

function asText(result: VerifyResult, replica: string, args: VerifyArgs): string {
  const { state, findings } = result;
  const lines: string[] = [];
  if (state !== undefined) {
    const size = `${state.pageCount} pages (${formatBytes(state.pageCount * state.pageSize)})`;
    lines.push(`${replica}: TXID ${formatTxid(state.txid)} of ${formatMoment(state.timestampMs)}, ${size}`);
  }
  if (findings.length > 0) {
    const found = findings.map(({ check, message }) => `  ${check}: ${message}`);
    return [...lines, 'NOT SOUND', ...found].join('\n');
  }
  const checks = [`integrity_check by SQLite ${result.sqliteVersion}`];
  if (args.query.length > 0) checks.push(`${args.query.length} queries`);
  if (args.against !== undefined) checks.push(`the same pages as ${args.against}`);
  if (args.maxAge !== undefined) checks.push(`not older than ${args.maxAge}`);
  return [...lines, `sound: ${checks.join(', ')} (${formatElapsed(result.durationMs)})`].join('\n');
}

function asJson(result: VerifyResult, replica: string): object {
  const { state } = result;
  return {
    replica,
    sound: result.sound,
    findings: result.findings,
    ...(state && {
      txid: state.txid,
      timestamp: formatMoment(state.timestampMs),
      page_size: state.pageSize,
      page_count: state.pageCount,
      files: state.fileCount,
      bytes_read: state.bytesRead,
    }),
    sqlite: result.sqliteVersion,
    duration_ms: Math.round(result.durationMs),
  };
}
