/** What happens to the arguments before and after the parser, so that they mean what Litestream's users expect. */

import { JetliteError } from '../lib/errors.js';
import { isMistypedAddress, withoutUserInfo } from '../lib/replica/nats/address.js';

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
      throw new JetliteError('USAGE', `${flag(key)} was given ${value.length} times, expected once`);
    }
    if (value === '') throw new JetliteError('USAGE', `${flag(key)} is empty`);
  }
}

/** Arguments that name a file or a folder of this machine, and never a replica. */
const PATHS = [
  'db',
  'output',
  'stateDir',
  'config',
  'against',
  'junit',
  'file',
  'creds',
  'clientCert',
  'clientKey',
];

/** Those that may be the address of a replica, or name a bucket. */
const ADDRESSES = ['source', 'replica', 'bucket'];

/** An address in the place of a path would become a folder with a password in its name. Throws USAGE. */
export function refuseUrlsAsPaths(args: object): void {
  for (const [key, value] of Object.entries(args)) {
    const isPath = PATHS.includes(key);
    if (!isPath && !ADDRESSES.includes(key)) continue;
    const text = `${value}`;
    const name = /^(?:db|file|source|replica|bucket)$/.test(key) ? key.toUpperCase() : flag(key);
    if (isMistypedAddress(text)) {
      const expected = isPath ? 'a path' : key === 'bucket' ? 'a name' : 'nats://HOST/BUCKET or a path';
      throw new JetliteError('USAGE', `${name}: expected ${expected}, found what looks like an address`, {
        hint: 'An address begins with nats:// or tls://. Write ./ before a path that looks like one.',
      });
    }
    if (isPath && /^[a-z][a-z0-9+.-]*:\/\//i.test(text))
      throw new JetliteError('USAGE', `${name}: expected a path, found ${withoutUserInfo(text)}`);
  }
}

/** As it is written on the command line. */
function flag(key: string): string {
  const name = key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
  return name.length === 1 ? `-${name}` : `--${name}`;
}
