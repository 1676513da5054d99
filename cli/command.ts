/**
 * What a command is. Each file in `commands/` exports one, made by `defineCommand`; `main.ts` lists them.
 * A command declares its options, imports the job it runs only when it runs, and returns the exit code.
 */

import type { ArgumentsCamelCase, Argv } from 'yargs';
import type { Log, LogSettings } from './log.js';
import type { Terminal } from './terminal.js';

/** See "Exit codes" in the README: the four codes every command keeps to. */
export const EXIT_DONE = 0;
export const EXIT_FAILED = 1;
export const EXIT_USAGE = 2;
export const EXIT_DAMAGED = 3;

export interface GlobalOptions {
  quiet: boolean;
  logLevel: string | undefined;
}

/** What a command is given besides its arguments. */
export interface Context {
  /** Fires on the first SIGINT or SIGTERM. */
  readonly signal: AbortSignal;
  /** Events and warnings, to stderr. */
  readonly log: Log;
  readonly terminal: Terminal;
  /** Takes the configuration file's logging section; flags given on the command line stay stronger. */
  useLogging(settings: LogSettings): void;
}

export interface Command {
  /** Name and positional arguments as yargs writes them: `backup <db> [replica]`. */
  readonly command: string;
  readonly describe: string;
  readonly options: (yargs: Argv) => Argv;
  readonly run: (args: object, context: Context) => Promise<number>;
}

/** Types a command's `run` by its `options`, then lets go of the type so that commands can stand in one list. */
export function defineCommand<O>(command: {
  readonly command: string;
  readonly describe: string;
  readonly options: (yargs: Argv) => Argv<O>;
  readonly run: (args: ArgumentsCamelCase<O>, context: Context) => Promise<number>;
}): Command {
  return command as unknown as Command;
}
