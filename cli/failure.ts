/** An error becomes lines for the user and an exit code. Nobody but a developer ever sees a stack trace. */

import { JetliteError } from '../lib/errors.js';
import { withoutSecrets } from '../lib/replica/nats/address.js';
import { EXIT_DAMAGED, EXIT_FAILED, EXIT_USAGE } from './command.js';

export interface Failure {
  readonly exitCode: number;
  /** What to print to stderr. */
  readonly lines: readonly string[];
}

/** `withStack` (log level debug) adds where an error arose. */
export function describeFailure(error: unknown, withStack: boolean): Failure {
  const { exitCode, lines } = describe(error, withStack);
  return { exitCode, lines: lines.map(withoutSecrets) };
}

function describe(error: unknown, withStack: boolean): Failure {
  const stack = withStack && error instanceof Error && error.stack !== undefined ? [error.stack] : [];
  if (error instanceof JetliteError) {
    const hint = error.hint === undefined ? [] : [`  ${oneLine(error.hint)}`];
    return {
      exitCode: exitCodeOf(error),
      lines: [`jetlite: ${oneLine(error.message)}`, ...hint, ...stack],
    };
  }
  const message = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  return {
    exitCode: EXIT_FAILED,
    lines: [
      `jetlite: unexpected error, please report it (with --log-level debug for details): ${oneLine(message)}`,
      ...stack,
    ],
  };
}

function exitCodeOf(error: JetliteError): number {
  if (error.code === 'USAGE') return EXIT_USAGE;
  return error.code === 'VERIFY' ? EXIT_DAMAGED : EXIT_FAILED;
}

function oneLine(text: string): string {
  return text.trim().replace(/\s*\n\s*/g, ' ');
}
