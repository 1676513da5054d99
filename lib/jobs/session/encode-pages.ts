/** Pages of a database, as they are read, become the blocks of an LTX file. */

import type { PageRun } from '../../capture/streamed-image.js';
import { LtxEncoder } from '../../ltx/encoder.js';
import type { LtxHeader } from '../../ltx/header.js';
import { lockPage } from '../../sqlite/database.js';

/**
 * Yields the file's blocks, each needed until the next is asked for, and returns the last one, which is not yielded:
 * without it the file is none, so whatever must be known before the file may be can be waited for.
 */
export async function* encodeRuns(
  header: LtxHeader,
  runs: AsyncIterable<PageRun>,
): AsyncGenerator<Uint8Array, Uint8Array> {
  const encoder = new LtxEncoder(header);
  const { pageSize } = header;
  const lock = lockPage(pageSize);
  for await (const { first, count, bytes } of runs) {
    for (let i = 0; i < count; i++) {
      if (first + i === lock) continue;
      encoder.writePage(first + i, bytes.subarray(i * pageSize, (i + 1) * pageSize));
    }
    for (let block = encoder.take(); block !== undefined; block = encoder.take()) {
      yield block;
      encoder.giveBack(block);
    }
  }
  return encoder.finish();
}
