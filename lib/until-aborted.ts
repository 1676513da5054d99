/**
 * Waiting for a replica that may have gone silent, for no longer than a signal allows. What is let go of may still end some
 * day; nobody hears of it.
 */

import { throwIfAborted } from './errors.js';

/** What `work` comes to, or ABORTED as soon as the signal fires. `what` was being done: "the restore". */
export async function orAborted<T>(
  work: Promise<T>,
  signal: AbortSignal | undefined,
  what: string,
): Promise<T> {
  if (signal === undefined) return work;
  work.catch(() => {});
  throwIfAborted(signal, what);
  let forget = (): void => {};
  const aborted = new Promise<void>((resolve) => {
    const stop = (): void => resolve();
    signal.addEventListener('abort', stop, { once: true });
    forget = () => signal.removeEventListener('abort', stop);
  });
  try {
    await Promise.race([work, aborted]);
  } finally {
    forget();
  }
  throwIfAborted(signal, what);
  return work;
}

/** What `work`, which hears of the signal itself, comes to; ABORTED if it goes on for longer than that after it has fired. */
export async function orAbortedAfter<T>(
  work: Promise<T>,
  signal: AbortSignal | undefined,
  graceMs: number,
  what: string,
): Promise<T> {
  if (signal === undefined) return work;
  const grace = new AbortController();
  let timer: NodeJS.Timeout | undefined;
  const begin = (): void => {
    timer = setTimeout(() => grace.abort(), graceMs);
  };
  if (signal.aborted) begin();
  else signal.addEventListener('abort', begin, { once: true });
  try {
    return await orAborted(work, grace.signal, what);
  } finally {
    signal.removeEventListener('abort', begin);
    clearTimeout(timer);
  }
}

/** Yields what `source` does; ABORTED as soon as the signal fires, also while the source has nothing to give. */
export async function* untilAborted<T>(
  source: AsyncIterable<T>,
  signal: AbortSignal | undefined,
  what: string,
): AsyncGenerator<T, void, void> {
  if (signal === undefined) {
    yield* source;
    return;
  }
  const iterator = source[Symbol.asyncIterator]();
  try {
    for (;;) {
      throwIfAborted(signal, what);
      const result = await orAborted(iterator.next(), signal, what);
      if (result.done) return;
      yield result.value;
    }
  } finally {
    // One that hangs ends behind what it waits for.
    const ended = iterator.return?.();
    if (ended !== undefined) await orAborted(ended, signal, what).catch(ignoreAborted(signal));
  }
}

function ignoreAborted(signal: AbortSignal): (error: unknown) => void {
  return (error) => {
    if (!signal.aborted) throw error;
  };
}
