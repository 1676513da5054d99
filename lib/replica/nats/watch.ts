/** The changes that a listing hears of, one after the other, for whoever takes them at a pace of their own. */

import type { LtxFileInfo } from '../replica.js';
import { infoOf, type Listing } from './listing.js';

/** Every change from now on, until the signal fires or the listing is closed. Throws REPLICA where it can be heard no more. */
export function watchListing(listing: Listing, signal: AbortSignal): AsyncIterable<LtxFileInfo> {
  const queue: LtxFileInfo[] = [];
  let ended = false;
  let failure: unknown;
  let wake = () => {};
  const stop = listing.listen({
    changed: (file) => {
      queue.push(infoOf(file));
      wake();
    },
    end: (error) => {
      ended = true;
      failure = error;
      wake();
    },
  });
  const abort = () => {
    ended = true;
    stop();
    wake();
  };
  if (signal.aborted) abort();
  signal.addEventListener('abort', abort, { once: true });
  return (async function* () {
    try {
      while (!ended) {
        const file = queue.shift();
        if (file !== undefined) {
          yield file;
        } else {
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
        }
      }
      if (failure !== undefined) throw failure;
    } finally {
      signal.removeEventListener('abort', abort);
      stop();
    }
  })();
}
