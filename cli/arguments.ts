/** What happens to the arguments before and after the parser, so that they mean what Litestream's users expect. */

import { JetliteError } from '../lib/errors.js';

/**
 * Go's flag package takes `-timestamp` for `--timestamp`, so scripts written for Litestream do. A dash and one letter
 * stays (`-o`, `-f`), a dash and more becomes a long option; after `--` nothing is touched.
 */
export function goFlagsToLong(argv: readonly string[]): string[] {
  const end = argv.indexOf('--');
  return argv.map((arg, i) =>
    (end === -1 || i < end) && /^-[a-zA-Z][a-zA-Z0-9-]+(=|$)/.test(arg) ? `-${arg}` : arg,
  );
}

/** Options that may be given several times; the parser returns these as arrays. */
const REPEATABLE = new Set(['_', 'query', 'expect']);

/** An option given twice is a mistake to be told, not one to be resolved silently. Throws USAGE. */
export function refuseRepeatedOptions(args: object): void {
  for (const [key, value] of Object.entries(args)) {
    if (Array.isArray(value) && !REPEATABLE.has(key)) {
      throw new JetliteError('USAGE', `--${dashed(key)} was given ${value.length} times, expected once`);
    }
    if (value === '') throw new JetliteError('USAGE', `--${dashed(key)} is empty`);
  }
}

function dashed(key: string): string {
  return key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}
