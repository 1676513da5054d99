/** The program that `replicate --exec` runs beside itself: no shell in between, so that signals reach it. */

import { spawn } from 'node:child_process';
import { constants } from 'node:os';
import { JetliteError } from '../lib/errors.js';

/**
 * Words of a command line: separated by blanks, with single quotes, double quotes and backslashes as in a shell, nothing
 * expanded. Throws USAGE for an open quote or no word at all.
 */
export function splitCommand(text: string): string[] {
  const words: string[] = [];
  const pattern = /\s*((?:[^\s'"\\]|\\[\s\S]|'[^']*'|"(?:[^"\\]|\\[\s\S])*")+)/y;
  let at = 0;
  for (let match = pattern.exec(text); match !== null; match = pattern.exec(text)) {
    words.push(unquote(match[1]));
    at = pattern.lastIndex;
  }
  if (text.slice(at).trim() !== '') {
    throw new JetliteError('USAGE', `--exec: expected quotes in pairs, found ${text.slice(at).trim()}`);
  }
  if (words.length === 0) throw new JetliteError('USAGE', '--exec is empty');
  return words;
}

function unquote(word: string): string {
  return word.replace(/\\([\s\S])|'([^']*)'|"((?:[^"\\]|\\[\s\S])*)"/g, (_, escaped, single, double) => {
    if (escaped !== undefined) return escaped as string;
    return (single as string | undefined) ?? (double as string).replace(/\\(["\\$`])/g, '$1');
  });
}

export interface Subprogram {
  /** Its exit code, or 128 plus the number of the signal that ended it. Throws USAGE if it could not be started. */
  readonly ended: Promise<number>;
  kill(signal: NodeJS.Signals): void;
}

/** Starts a program on this one's terminal. */
export function startSubprogram(commandLine: string): Subprogram {
  const [program, ...args] = splitCommand(commandLine);
  const child = spawn(program, args, { stdio: 'inherit' });
  const ended = new Promise<number>((resolve, reject) => {
    child.once('error', (error: NodeJS.ErrnoException) => {
      const reason = error.code === 'ENOENT' ? 'there is no such program' : error.message;
      reject(new JetliteError('USAGE', `--exec: cannot start ${program}: ${reason}`, { cause: error }));
    });
    child.once('exit', (code, signal) =>
      resolve(code ?? 128 + (signal === null ? 0 : constants.signals[signal])),
    );
  });
  return { ended, kill: (signal) => void child.kill(signal) };
}
