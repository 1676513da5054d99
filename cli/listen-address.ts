/** Where a server is to listen, from the text a user writes. */

import { JetliteError } from '../lib/errors.js';

export interface ListenAddress {
  /** Undefined: every interface. */
  readonly host: string | undefined;
  readonly port: number;
}

/** `HOST:PORT`, `[::1]:PORT`, `:PORT` or `PORT`. Throws USAGE. */
export function parseListenAddress(text: string): ListenAddress {
  const match = /^(?:(?:\[([0-9a-fA-F:.]+)\]|([^:[\]]*)):)?(\d{1,5})$/.exec(text.trim());
  const port = Number(match?.[3]);
  if (match === null || port > 65535) {
    throw new JetliteError(
      'USAGE',
      `expected an address to listen on as HOST:PORT, found ${JSON.stringify(text)}`,
      {
        hint: 'For example 127.0.0.1:9090.',
      },
    );
  }
  return { host: match[1] ?? (match[2] || undefined), port };
}
