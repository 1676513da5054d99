#!/usr/bin/env node
/**
 * The program: arguments in, exit code out.
 *
 * A command is one file in `commands/`, listed in COMMANDS. Parsing only chooses the command; it runs afterwards, so
 * that what it throws is a failure of the command and never one of the parser. Commands import their jobs when they
 * run: `jetlite version` loads neither the NATS client nor SQLite.
 *
 * The first SIGINT or SIGTERM fires the command's AbortSignal and the command ends in its own way; the second one
 * ends the program at once.
 */

import type { Argv } from 'yargs';
import yargs from 'yargs';
import { JetliteError } from '../lib/errors.js';
import { isMistypedAddress, withoutSecrets, withoutUserInfo } from '../lib/replica/nats/address.js';
import { goFlagsToLong, refuseRepeatedOptions, refuseUrlsAsPaths } from './arguments.js';
import {
  type Command,
  type Context,
  EXIT_DONE,
  EXIT_FAILED,
  EXIT_USAGE,
  type GlobalOptions,
} from './command.js';
import { backupCommand } from './commands/backup.js';
import { bucketCommand } from './commands/bucket.js';
import { compactCommand } from './commands/compact.js';
import { databasesCommand } from './commands/databases.js';
import { inspectCommand } from './commands/inspect.js';
import { ltxCommand } from './commands/ltx.js';
import { replicateCommand } from './commands/replicate.js';
import { restoreCommand } from './commands/restore.js';
import { statusCommand } from './commands/status.js';
import { verifyCommand } from './commands/verify.js';
import { versionCommand } from './commands/version.js';
import { describeFailure } from './failure.js';
import { createLog, type LogSettings, parseLogLevel } from './log.js';
import { createTerminal } from './terminal.js';

const COMMANDS: readonly Command[] = [
  backupCommand,
  replicateCommand,
  restoreCommand,
  verifyCommand,
  compactCommand,
  ltxCommand,
  inspectCommand,
  bucketCommand,
  databasesCommand,
  statusCommand,
  versionCommand,
];

interface Choice {
  readonly command: Command;
  readonly args: object & GlobalOptions & { json?: boolean };
}

/** What parsing came to: a command to run, or text that answers the user at once. */
type Parsed = Choice | { readonly exitCode: number; readonly text: string };

function buildParser(chosen: (choice: Choice) => void): Argv {
  let parser = yargs()
    .scriptName('jetlite')
    .usage('$0 <command>\n\nStreams live SQLite databases to NATS JetStream or a folder, and restores them.')
    .detectLocale(false)
    .updateStrings({
      'Not enough non-option arguments: got %s, need at least %s': {
        one: 'Too few arguments: found %s, expected at least %s',
        other: 'Too few arguments: found %s, expected at least %s',
      } as unknown as string,
      'Not enough arguments following: %s': 'A value is missing after the option %s',
      'Unknown argument: %s': {
        one: 'Unknown option: %s',
        other: 'Unknown options: %s',
      } as unknown as string,
    })
    .parserConfiguration({
      'boolean-negation': false,
      'camel-case-expansion': true,
      'dot-notation': false,
      'greedy-arrays': false,
      'parse-numbers': false,
      'parse-positional-numbers': false,
    })
    .option('quiet', { type: 'boolean', default: false, describe: 'Print errors only', global: true })
    .option('log-level', {
      type: 'string',
      requiresArg: true,
      describe: 'debug, info, warn or error',
      global: true,
    })
    .strict()
    .strictCommands()
    .demandCommand(1, 'Which command?')
    .help('help')
    .alias('help', 'h')
    .version(false)
    .wrap(Math.min(110, process.stdout.columns ?? 110))
    .exitProcess(false);
  for (const command of COMMANDS) {
    parser = parser.command({
      command: command.command,
      describe: command.describe,
      builder: (y: Argv) => command.options(y),
      handler: (args) => chosen({ command, args: args as unknown as Choice['args'] }),
    });
  }
  return parser;
}

async function parse(argv: readonly string[]): Promise<Parsed> {
  let choice: Choice | undefined;
  let failure: Error | null | undefined;
  let text = '';
  const parser = buildParser((made) => {
    choice = made;
  });
  await parser.parseAsync(goFlagsToLong(argv), {}, (error, _args, output) => {
    failure = error;
    text = output;
  });
  if (failure != null) {
    const name = argv.find((arg) => !arg.startsWith('-'));
    const known = COMMANDS.some((command) => command.command.split(' ')[0] === name);
    // To the parser whatever stands where a command could is one.
    const quoted = argv.reduce((said, arg) => said.replaceAll(arg, hidden(arg)), failure.message);
    const message = unknownOnce(known ? quoted.replace(/^Unknown command/, 'Unexpected argument') : quoted);
    throw new JetliteError('USAGE', message, {
      hint: `See: jetlite ${known ? `${name} ` : ''}--help`,
    });
  }
  if (choice === undefined) return { exitCode: EXIT_DONE, text };
  refuseRepeatedOptions(choice.args);
  refuseUrlsAsPaths(choice.args);
  return choice;
}

/** The parser names an option with a dash in it a second time, as it is called inside a program. */
function unknownOnce(message: string): string {
  const [, list] = /^Unknown options: (.*)$/s.exec(message) ?? [];
  if (list === undefined) return message;
  const names = list.split(', ');
  const inside = new Set(
    names
      .filter((name) => name.includes('-'))
      .map((name) => name.replaceAll(/-(.)/g, (_, letter: string) => letter.toUpperCase())),
  );
  const written = names.filter((name) => !inside.has(name));
  return `Unknown option${written.length === 1 ? '' : 's'}: ${written.join(', ')}`;
}

function createContext(args: Choice['args'], signal: AbortSignal): Context {
  const flagLevel = args.logLevel === undefined ? undefined : parseLogLevel(args.logLevel);
  if (args.logLevel !== undefined && flagLevel === undefined) {
    throw new JetliteError(
      'USAGE',
      `--log-level: expected debug, info, warn or error, found "${args.logLevel}"`,
    );
  }
  const asked = flagLevel ?? (args.quiet ? 'error' : args.json === true ? 'warn' : undefined);
  const terminal = createTerminal(process, args.json !== true, args.quiet);
  const log = createLog(terminal.line, process.stderr.isTTY === true && process.env.NO_COLOR === undefined);
  const useLogging = (settings: LogSettings): void =>
    log.configure(asked === undefined ? settings : { ...settings, level: asked });
  useLogging({});
  return { signal, log, terminal, useLogging };
}

/** The broken pipe of `jetlite ltx | head` is no failure; a full disk behind a redirection is one. */
function survivePipes(): void {
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') return;
    process.stderr.write(`jetlite: cannot write the result: ${error.message}\n`);
    process.exit(EXIT_FAILED);
  });
  process.stderr.on('error', () => {});
}

function abortOnSignals(): AbortSignal {
  const controller = new AbortController();
  const onSignal = (): void => {
    if (controller.signal.aborted) process.exit(EXIT_FAILED);
    controller.abort(new JetliteError('ABORTED', 'interrupted'));
  };
  process.on('SIGINT', onSignal);
  process.on('SIGTERM', onSignal);
  return controller.signal;
}

function hidden(arg: string): string {
  return arg.includes('://') || isMistypedAddress(arg) ? withoutUserInfo(arg) : withoutSecrets(arg);
}

/** Credentials that stand on the command line are out of the list of processes from here on. */
function hideCredentials(argv: readonly string[]): void {
  const shown = argv.map(hidden);
  if (shown.some((arg, i) => arg !== argv[i])) process.title = `jetlite ${shown.join(' ')}`;
}

function isVersionFlag(argv: readonly string[]): boolean {
  return argv.length === 1 && goFlagsToLong(argv)[0] === '--version';
}

async function main(argv: readonly string[]): Promise<number> {
  survivePipes();
  hideCredentials(argv);
  if (argv.length === 0) {
    process.stderr.write(`${await buildParser(() => {}).getHelp()}\n`);
    return EXIT_USAGE;
  }
  let withStack = false;
  const fail = (error: unknown): number => {
    const failure = describeFailure(error, withStack);
    process.stderr.write(`${failure.lines.join('\n')}\n`);
    return failure.exitCode;
  };
  // What no command saw coming, from a library's callback, is told in one line as well.
  process.on('uncaughtException', (error) => process.exit(fail(error)));
  try {
    const parsed = await parse(isVersionFlag(argv) ? ['version'] : argv);
    if ('text' in parsed) {
      process.stdout.write(`${parsed.text}\n`);
      return parsed.exitCode;
    }
    const context = createContext(parsed.args, abortOnSignals());
    withStack = context.log.shows('debug');
    return await parsed.command.run(parsed.args, context);
  } catch (error) {
    return fail(error);
  }
}

/** Ends the program when what it said is out: a connection that a library still holds must not keep it. */
async function end(exitCode: number): Promise<never> {
  for (const stream of [process.stdout, process.stderr]) {
    await new Promise<void>((resolve) => stream.write('', () => resolve()));
  }
  process.exit(exitCode);
}

await end(await main(process.argv.slice(2)));
