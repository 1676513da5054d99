/**
 * The bytes of several files of a replica, one file after the other, with the next small files fetched meanwhile: a
 * chain of many small files costs one round trip to the server at a time otherwise. Large files stream when their
 * turn comes, so what is held is bounded by `parallelism` small files.
 */

import type { LtxFileInfo, Replica } from '../../replica/replica.js';

/** Files up to this size are fetched whole and ahead of their turn, bytes. */
const SMALL_FILE = 1024 * 1024;

export interface FileBytes {
  readonly file: LtxFileInfo;
  readonly bytes: AsyncIterable<Uint8Array> | Iterable<Uint8Array>;
}

/**
 * Yields `files` in their order. A fetch that fails does so when its file's turn comes. When the caller stops early, fetches
 * under way are waited for, so that the replica can be closed afterwards.
 */
export async function* readAhead(
  replica: Replica,
  files: readonly LtxFileInfo[],
  parallelism: number,
): AsyncGenerator<FileBytes, void, void> {
  const fetched = new Map<LtxFileInfo, Promise<Uint8Array[]>>();
  let next = 0;
  try {
    for (const [turn, file] of files.entries()) {
      for (; next < files.length && next < turn + parallelism; next++) {
        if (files[next].size > SMALL_FILE) continue;
        const bytes = readWhole(replica, files[next]);
        bytes.catch(() => {}); // Reported when its turn comes.
        fetched.set(files[next], bytes);
      }
      const whole = fetched.get(file);
      fetched.delete(file);
      yield { file, bytes: whole === undefined ? replica.read(file) : await whole };
    }
  } finally {
    await Promise.allSettled(fetched.values());
  }
}

async function readWhole(replica: Replica, file: LtxFileInfo): Promise<Uint8Array[]> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of replica.read(file)) chunks.push(chunk.slice());
  return chunks;
}
