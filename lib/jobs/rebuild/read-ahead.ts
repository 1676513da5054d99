/**
 * The bytes of several files of a replica, one file after the other, with the next small files fetched meanwhile: a
 * chain of many small files costs one round trip to the server at a time otherwise. Large files stream when their
 * turn comes, so what is held is bounded by `parallelism` small files. The memory they are fetched into is used again.
 */

import type { LtxFileInfo, Replica } from '../../replica/replica.js';
import { orAborted, untilAborted } from '../../until-aborted.js';

/** Files up to this size are fetched whole and ahead of their turn, bytes. */
const SMALL_FILE = 1024 * 1024;

export interface FileBytes {
  readonly file: LtxFileInfo;
  readonly bytes: AsyncIterable<Uint8Array> | Iterable<Uint8Array>;
}

/**
 * Yields `files` in their order; the bytes of one are there until the next is asked for. A fetch that fails does so when
 * its file's turn comes. When the caller stops early, fetches under way are waited for, so that the replica can be closed
 * afterwards. When `signal` fires nothing is waited for any more: ABORTED, also in the middle of a file; `what` was being
 * done, as for throwIfAborted.
 */
export async function* readAhead(
  replica: Replica,
  files: readonly LtxFileInfo[],
  parallelism: number,
  signal?: AbortSignal,
  what = 'reading the replica',
): AsyncGenerator<FileBytes, void, void> {
  const fetched = new Map<LtxFileInfo, Promise<Fetched>>();
  const spare: Uint8Array[] = [];
  let next = 0;
  try {
    for (const [turn, file] of files.entries()) {
      for (; next < files.length && next < turn + parallelism; next++) {
        if (files[next].size > SMALL_FILE) continue;
        const bytes = readWhole(replica, files[next], spare.pop());
        bytes.catch(() => {}); // Reported when its turn comes.
        fetched.set(files[next], bytes);
      }
      const whole = fetched.get(file);
      fetched.delete(file);
      if (whole === undefined) {
        yield { file, bytes: untilAborted(replica.read(file), signal, what) };
        continue;
      }
      const { buffer, length } = await orAborted(whole, signal, what);
      yield { file, bytes: [buffer.subarray(0, length)] };
      spare.push(buffer);
    }
  } finally {
    // Only the signal can cut this short, and whoever fired it knows.
    await orAborted(Promise.allSettled(fetched.values()), signal, what).catch(() => {});
  }
}

interface Fetched {
  readonly buffer: Uint8Array;
  readonly length: number;
}

/** `spare`: memory to be used if the file fits into it. */
async function readWhole(replica: Replica, file: LtxFileInfo, spare?: Uint8Array): Promise<Fetched> {
  let buffer = spare !== undefined && spare.length >= file.size ? spare : bufferFor(file.size);
  let length = 0;
  for await (const chunk of replica.read(file)) {
    if (length + chunk.length > buffer.length) {
      // The listing said less than there is.
      const before = buffer;
      buffer = bufferFor(length + chunk.length);
      buffer.set(before);
    }
    buffer.set(chunk, length);
    length += chunk.length;
  }
  return { buffer, length };
}

/** Large enough for others of about this size, too. */
function bufferFor(size: number): Uint8Array {
  return new Uint8Array(2 ** Math.ceil(Math.log2(Math.max(size, 4096))));
}
