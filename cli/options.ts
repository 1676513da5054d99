/** Options that several commands share, and how their text becomes a value. Each parser throws USAGE naming the option. */

import type { Argv } from 'yargs';
import { JetliteError } from '../lib/errors.js';
import {
  DURATION_EXAMPLES,
  parseDuration,
  parseTimestamp,
  parseTypedTxid,
  TIMESTAMP_EXAMPLES,
  TXID_EXAMPLES,
} from './units.js';

export function jsonOption<T>(yargs: Argv<T>) {
  return yargs.option('json', { type: 'boolean', default: false, describe: 'Print one JSON document' });
}

export function configOptions<T>(yargs: Argv<T>) {
  return yargs
    .option('config', { type: 'string', requiresArg: true, describe: 'Path of the configuration file' })
    .option('no-expand-env', {
      type: 'boolean',
      default: false,
      describe: 'Leave $VARIABLES in the configuration as they are',
    });
}

/** The replica that a command works with, and the configuration that may know it. */
export function sourceOptions<T>(yargs: Argv<T>) {
  return configOptions(yargs).positional('source', {
    type: 'string',
    demandOption: true,
    describe: 'Database of the configuration, or URL or folder of a replica',
  });
}

export function stateDirOption<T>(yargs: Argv<T>) {
  return yargs.option('state-dir', {
    type: 'string',
    requiresArg: true,
    describe: 'Folder for local state [.NAME-jetlite beside the database]',
  });
}

/** Where the state lies, and what its owner insists on: all who write a replica take these. */
export function writerOptions<T>(yargs: Argv<T>) {
  return unsafeBucketOption(stateDirOption(yargs)).option('allow-other-database', {
    type: 'boolean',
    default: false,
    describe: 'Go on with a replica that seems to be another database’s',
  });
}

export function unsafeBucketOption<T>(yargs: Argv<T>) {
  return yargs.option('allow-unsafe-bucket', {
    type: 'boolean',
    default: false,
    describe: 'Write even into a bucket whose settings let the server drop parts',
  });
}

export interface WriterArgs {
  readonly stateDir: string | undefined;
  readonly allowUnsafeBucket: boolean;
  readonly allowOtherDatabase: boolean;
}

/** Which state: both restore and verify take these. */
export function stateOptions<T>(yargs: Argv<T>) {
  return yargs
    .option('timestamp', {
      type: 'string',
      requiresArg: true,
      describe: 'The last state at or before this moment (RFC 3339)',
    })
    .option('txid', { type: 'string', requiresArg: true, describe: 'Exactly this state (hexadecimal TXID)' })
    .option('parallelism', { type: 'string', requiresArg: true, describe: 'Files fetched at a time [8]' });
}

export interface StateArgs {
  readonly timestamp: string | undefined;
  readonly txid: string | undefined;
  readonly parallelism: string | undefined;
}

export function readStateArgs(args: StateArgs): {
  txid: bigint | undefined;
  timestampMs: number | undefined;
  parallelism: number | undefined;
} {
  return {
    txid: read('txid', args.txid, parseTypedTxid, TXID_EXAMPLES),
    timestampMs: read('timestamp', args.timestamp, parseTimestamp, TIMESTAMP_EXAMPLES),
    parallelism: read('parallelism', args.parallelism, parseCount, 'a whole number from 1 to 256'),
  };
}

export function readDuration(option: string, text: string | undefined): number | undefined {
  return read(option, text, (value) => positive(parseDuration(value)), DURATION_EXAMPLES);
}

export function readChoice<T extends string>(option: string, text: string, choices: readonly T[]): T {
  const choice = choices.find((name) => name === text);
  if (choice !== undefined) return choice;
  throw new JetliteError('USAGE', `--${option}: expected ${choices.join(', ')}, found "${text}"`);
}

/** Permissions of a file that its owner reads and writes. */
export function readMode(option: string, text: string | undefined): number | undefined {
  return read(option, text, parseMode, 'permissions such as 600, 640 or 644');
}

function parseMode(text: string): number | undefined {
  return /^0?6[0246]{2}$/.test(text) ? Number.parseInt(text, 8) : undefined;
}

function read<T>(
  option: string,
  text: string | undefined,
  parse: (text: string) => T | undefined,
  examples: string,
): T | undefined {
  if (text === undefined) return undefined;
  const value = parse(text);
  if (value !== undefined) return value;
  throw new JetliteError('USAGE', `--${option}: expected ${examples}, found "${text}"`);
}

function positive(value: number | undefined): number | undefined {
  return value !== undefined && value > 0 ? value : undefined;
}

function parseCount(text: string): number | undefined {
  const count = Number(text);
  return /^\d+$/.test(text) && count >= 1 && count <= 256 ? count : undefined;
}
