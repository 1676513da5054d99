/**
 * Merges consecutive LTX files into one that has their whole effect: of each page the newest version, and no
 * page beyond the last file's commit.
 *
 * 1. The inputs touch or overlap: each begins at the latest with the transaction after its predecessor's last, and ends
 *    later; what both hold, the later one holds as it became. Their pages have the same size.
 * 2. All inputs ascend by page number, so one walk over all of them at once suffices. What is kept of an input
 *    is the piece of it at hand and one page; of the output, one block and its page index.
 * 3. Compressed pages are copied as they are. Each page is decompressed nevertheless: the checksums of input
 *    and output are over the decompressed bytes.
 * 4. Where the database shrank and grew again, the file that made it grow must have written the pages it grew
 *    by; one that it did not write (SQLite leaves out free pages) keeps its version from before, as in
 *    Litestream.
 * 5. The last block of the output is yielded only after every input has been verified to its end.
 */

import { LtxEncoder, type OnEncodedPage } from './encoder.js';
import { GatheredPages } from './gathered-pages.js';
import { LTX_FLAG_NO_CHECKSUM, type LtxHeader } from './header.js';
import { END, expectFollowing, FileCursor, type LtxMergeInput, type PageCursor } from './merge-cursor.js';

export type { LtxMergeInput } from './merge-cursor.js';

export interface MergeOptions {
  /**
   * The first TXID that the merged file states; left out, that of the first input. A later one makes a file that goes on
   * from a later state, such as a snapshot that is to bridge what is missing in between.
   */
  readonly minTxid?: bigint;
  /** Each block is needed only until the next one is asked for, and may be filled again then. */
  readonly reuseBlocks?: boolean;
  /** Sees each page of the merged file. */
  readonly onPage?: OnEncodedPage | undefined;
}

/**
 * Yields the merged file block by block, each block the caller's to keep unless `reuseBlocks` is set. `inputs` (at least one) are files or what was
 * gathered of several, in the order of their transactions. Throws FormatError if an input is damaged, or if they do
 * not follow one another; what was yielded is then worthless.
 */
export async function* mergeLtx(
  inputs: readonly (LtxMergeInput | GatheredPages)[],
  options: MergeOptions = {},
): AsyncGenerator<Uint8Array, void, void> {
  if (inputs.length === 0) throw new TypeError('nothing to merge');
  const cursors = inputs.map((input) => (input instanceof GatheredPages ? input : new FileCursor(input)));
  try {
    for (const cursor of cursors) await cursor.open();
    const encoder = new LtxEncoder(mergedHeader(cursors, options), options.onPage);
    for (;;) {
      const newest = lowest(cursors);
      if (newest === undefined) break;
      const pgno = newest.pgno;
      if (pgno <= cursors[cursors.length - 1].header.commit) newest.copyTo(encoder);
      for (let block = encoder.take(); block !== undefined; block = encoder.take()) {
        yield block;
        if (options.reuseBlocks) encoder.giveBack(block);
      }
      for (const cursor of cursors) {
        if (cursor.pgno === pgno && !cursor.advance()) await cursor.fill();
      }
    }
    yield encoder.finish();
  } finally {
    // The outcome is decided; a source that cannot be closed must not hide it.
    await Promise.allSettled(cursors.map((cursor) => cursor.close()));
  }
}

/** The cursor with the lowest page, the newest of those that have it; undefined if all have ended. */
function lowest(cursors: readonly PageCursor[]): PageCursor | undefined {
  let found: PageCursor | undefined;
  let pgno = END;
  for (const cursor of cursors) {
    if (cursor.pgno <= pgno && cursor.pgno !== END) {
      found = cursor;
      pgno = cursor.pgno;
    }
  }
  return found;
}

function mergedHeader(cursors: readonly PageCursor[], options: MergeOptions): LtxHeader {
  for (let i = 1; i < cursors.length; i++) {
    expectFollowing(cursors[i - 1].header, cursors[i].name, cursors[i].header);
  }
  const last = cursors[cursors.length - 1].header;
  return {
    flags: LTX_FLAG_NO_CHECKSUM,
    pageSize: last.pageSize,
    commit: last.commit,
    minTxid: options.minTxid ?? cursors[0].header.minTxid,
    maxTxid: last.maxTxid,
    timestampMs: last.timestampMs,
    preApplyChecksum: 0n,
    walOffset: 0,
    walSize: 0,
    walSalt1: 0,
    walSalt2: 0,
    nodeId: 0n,
  };
}
