import { JetliteError } from '../../lib/errors.js';
import type { TidyResult, UpkeepSettings } from '../../lib/jobs/tidy/tidy.js';
import { SNAPSHOT_LEVEL } from '../../lib/replica/names.js';
import { parseReplicaUrl } from '../../lib/replica/open.js';
import type { LtxFileInfo } from '../../lib/replica/replica.js';
import { type Context, defineCommand, EXIT_DONE } from '../command.js';
import { formatBytes } from '../format.js';
import { jsonOption, sourceOptions, unsafeBucketOption } from '../options.js';
import {
  type ConfigArgs,
  requireConfig,
  resolveSource,
  type Source,
  showAddress,
  withReplica,
} from '../source.js';

interface CompactArgs extends ConfigArgs {
  readonly source: string;
  readonly snapshot: boolean;
  readonly retain: boolean;
  readonly allowUnsafeBucket: boolean;
  readonly json: boolean;
}

/** `jetlite compact DB|REPLICA`: what `replicate` does beside, once, with the replica alone. */
export const compactCommand = defineCommand({
  command: 'compact <source>',
  describe: 'Merge the files of a replica',
  options: (yargs) =>
    unsafeBucketOption(jsonOption(sourceOptions(yargs)))
      .option('snapshot', {
        type: 'boolean',
        default: false,
        describe: 'Make a snapshot of the newest state, also if none is due',
      })
      .option('retain', {
        type: 'boolean',
        default: false,
        describe:
          'Then remove the files that retention lets go, and what removing and killed uploads left behind',
      }),
  run: async (args: CompactArgs, context) => {
    const source = await resolveSource(args.source, args, context);
    const settings = source.levels ?? (await settingsOf(source, args, context));
    const { allowUnsafeBucket } = args;
    return withReplica({ ...source, allowUnsafeBucket }, context, async (replica) => {
      const { DEFAULT_LEVELS, tidy } = await import('../../lib/jobs/tidy/tidy.js');
      const result = await tidy(replica, {
        settings: { ...DEFAULT_LEVELS, ...settings },
        snapshot: args.snapshot ? 'now' : 'due',
        retain: args.retain && settings.retention !== false,
        sweep: args.retain && settings.retention !== false,
        signal: context.signal,
        onEvent: ({ level, message }) => context.log.write(level, message),
      });
      if (result.kind === 'busy' && args.snapshot) {
        throw new JetliteError('REPLICA', `${result.holder} is merging files of ${replica.url} just now`, {
          hint: 'Try again in a minute.',
        });
      }
      if (args.json) context.terminal.json(asJson(replica.url, result));
      else context.terminal.result(`${replica.url}: ${asText(result)}`);
      if (result.kind === 'done' && result.stuck.length > 0) {
        throw new JetliteError('REPLICA', `not all could be done: ${result.stuck.join('; ')}`, {
          hint: 'What can be restored is not touched by it; see: jetlite verify.',
        });
      }
      return EXIT_DONE;
    });
  },
});

/**
 * Of a configuration that is named although the replica is, too: what it says for the database whose replica that is, else
 * for all. Throws USAGE if files were to be removed and databases keep theirs for times of their own: this might be one.
 */
async function settingsOf({ address }: Source, args: CompactArgs, context: Context): Promise<UpkeepSettings> {
  if (args.config === undefined) return {};
  const { file, levels, databases } = await requireConfig(args, context);
  const shown = showAddress(typeof address === 'string' ? parseReplicaUrl(address) : address);
  const own = databases.find(({ replica }) => showAddress(replica.address) === shown);
  if (own !== undefined) return own.levels;
  const differ = databases.some((database) => JSON.stringify(database.levels) !== JSON.stringify(levels));
  if (args.retain && differ) {
    throw new JetliteError(
      'USAGE',
      `${file} does not name ${shown}, and databases in it have a retention of their own`,
      {
        hint: 'Name the database instead of its replica, or leave --config or --retain out.',
      },
    );
  }
  return levels;
}

function asJson(replica: string, result: TidyResult): object {
  if (result.kind === 'busy') return { replica, kind: 'busy', holder: result.holder };
  return {
    replica,
    kind: 'done',
    merged: result.merged.map(asFile),
    removed: result.removed.map(asFile),
    stuck: result.stuck,
    ...(result.swept && { swept: { marks: result.swept.marks, uploads: result.swept.uploads } }),
  };
}

function asFile({ level, minTxid, maxTxid, size }: LtxFileInfo): object {
  return { level, min_txid: minTxid, max_txid: maxTxid, size };
}

function asText(result: TidyResult): string {
  if (result.kind === 'busy') return `${result.holder} is merging its files just now, nothing done`;
  const snapshots = result.merged.filter(({ level }) => level === SNAPSHOT_LEVEL);
  const merged = result.merged.length - snapshots.length;
  const parts = [
    ...(merged > 0 ? [`${merged} merged ${merged === 1 ? 'file' : 'files'}`] : []),
    ...(snapshots.length > 0 ? [`a snapshot of ${formatBytes(snapshots[snapshots.length - 1].size)}`] : []),
    ...(result.removed.length > 0 ? [`${result.removed.length} removed`] : []),
  ];
  const { marks = 0, uploads = 0 } = result.swept ?? {};
  if (marks > 0) parts.push(`${marks} old marks of removed files swept`);
  if (uploads > 0) parts.push(`${uploads} killed ${uploads === 1 ? 'upload' : 'uploads'} swept`);
  return parts.length === 0 ? 'nothing to do' : parts.join(', ');
}
