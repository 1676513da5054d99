/**
 * Tells when what is put has a time of the future: time does not go back in a replica, or a moment would lead to states
 * that were captured after it. So a clock that ran ahead leaves its mark until that time has come, and whoever restores by
 * moments should know.
 */

import type { Companion, SessionParts } from './companion.js';

/** Clocks that are put right by so little need no word, ms. */
const TELL_MS = 60_000;

export function watchClock({ uploader, emit }: SessionParts): Companion {
  let told = false;
  const forget = uploader.onDurable(({ file: { timestampMs } }) => {
    const ahead = timestampMs - Date.now();
    if (ahead <= TELL_MS) {
      told = false;
      return;
    }
    if (told) return;
    told = true;
    const until =
      Math.abs(timestampMs) <= 8.64e15 ? new Date(timestampMs).toISOString() : 'an impossible time';
    emit({
      type: 'clock',
      level: 'warn',
      message:
        `a file in the replica is of ${until}, when a clock was wrong; until then, what is put is of that time: no moment ` +
        'before leads to it, its TXID does',
    });
  });
  return {
    stop: async () => {
      forget();
    },
  };
}
