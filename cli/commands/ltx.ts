import { JetliteError } from '../../lib/errors.js';
import { formatTxid } from '../../lib/ltx/header.js';
import type { LtxFileInfo } from '../../lib/replica/replica.js';
import { defineCommand, EXIT_DONE } from '../command.js';
import { formatMoment, formatTable } from '../format.js';
import { jsonOption, sourceOptions } from '../options.js';
import { type ConfigArgs, resolveSource, withReplica } from '../source.js';

interface LtxArgs extends ConfigArgs {
  readonly source: string;
  readonly level: string;
  readonly json: boolean;
}

/** `jetlite ltx DB|REPLICA`: lists the files of a replica. */
export const ltxCommand = defineCommand({
  command: 'ltx <source>',
  describe: 'List the files of a replica',
  options: (yargs) =>
    jsonOption(sourceOptions(yargs)).option('level', {
      type: 'string',
      default: 'all',
      requiresArg: true,
      describe: '0 to 9, or all',
    }),
  run: async (args: LtxArgs, context) => {
    const level = readLevel(args.level);
    const source = await resolveSource(args.source, args, context);
    return withReplica(source, context, async (replica) => {
      const files = await replica.list(level);
      if (args.json) context.terminal.json(files.map(asJson));
      else context.terminal.result(asText(files));
      return EXIT_DONE;
    });
  },
});

function readLevel(text: string): number | undefined {
  if (text === 'all') return undefined;
  if (/^[0-9]$/.test(text)) return Number(text);
  throw new JetliteError('USAGE', `--level: expected 0 to 9 or all, found "${text}"`);
}

function asText(files: readonly LtxFileInfo[]): string {
  const rows = files.map((file) => [
    String(file.level),
    formatTxid(file.minTxid),
    formatTxid(file.maxTxid),
    String(file.size),
    formatMoment(file.timestampMs),
  ]);
  return formatTable(['level', 'min_txid', 'max_txid', 'size', 'created'], rows);
}

function asJson(file: LtxFileInfo): object {
  return {
    level: file.level,
    min_txid: file.minTxid,
    max_txid: file.maxTxid,
    size: file.size,
    timestamp: formatMoment(file.timestampMs),
  };
}
