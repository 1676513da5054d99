/**
 * Merges consecutive LTX files into one that has their whole effect: of each page the newest version, and no
 * page beyond the last file's commit.
 *
 * 1. The inputs touch: each begins with the transaction after its predecessor's last, with pages of the same
 *    size.
 * 2. All inputs ascend by page number, so one walk over all of them at once suffices. What is kept of an input
 *    is the piece of it at hand and one page; of the output, one block and its page index.
 * 3. Compressed pages are copied as they are. Each page is decompressed nevertheless: the checksums of input
 *    and output are over the decompressed bytes.
 * 4. Where the database shrank and grew again, the file that made it grow must have written the pages it grew
 *    by; one that it did not write (SQLite leaves out free pages) keeps its version from before, as in
 *    Litestream.
 * 5. The last block of the output is yielded only after every input has been verified to its end.
 */

import { FormatError } from '../errors.js';
import { LtxDecoder } from './decoder.js';
import { LtxEncoder } from './encoder.js';
import { formatTxid, LTX_FLAG_NO_CHECKSUM, type LtxHeader } from './header.js';

export interface LtxMergeInput {
  /** The file's name, for messages. */
  readonly name: string;
  /** The file's bytes. Sources are read side by side, a piece of each at a time. */
  readonly source: AsyncIterable<Uint8Array> | Iterable<Uint8Array>;
}

/**
 * Yields the merged file block by block, each block the caller's to keep. `inputs` (at least one) are in the
 * order of their transactions. Throws FormatError if an input is damaged, or if they do not follow one another;
 * what was yielded is then worthless.
 */
export async function* mergeLtx(inputs: readonly LtxMergeInput[]): AsyncGenerator<Uint8Array, void, void> {
  if (inputs.length === 0) throw new TypeError('nothing to merge');
  const cursors = inputs.map((input) => new Cursor(input));
  try {
    for (const cursor of cursors) await cursor.open();
    const encoder = new LtxEncoder(mergedHeader(cursors));
    for (;;) {
      const newest = lowest(cursors);
      if (newest === undefined) break;
      const pgno = newest.pgno;
      if (pgno <= cursors[cursors.length - 1].header.commit) newest.copyTo(encoder);
      for (let block = encoder.take(); block !== undefined; block = encoder.take()) yield block;
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
function lowest(cursors: readonly Cursor[]): Cursor | undefined {
  let found: Cursor | undefined;
  let pgno = END;
  for (const cursor of cursors) {
    if (cursor.pgno <= pgno && cursor.pgno !== END) {
      found = cursor;
      pgno = cursor.pgno;
    }
  }
  return found;
}

function mergedHeader(cursors: readonly Cursor[]): LtxHeader {
  for (let i = 1; i < cursors.length; i++) {
    const before = cursors[i - 1].header;
    const { minTxid, pageSize } = cursors[i].header;
    if (minTxid !== before.maxTxid + 1n) {
      throw new FormatError(
        cursors[i].name,
        `expected a file from TXID ${formatTxid(before.maxTxid + 1n)}, found one from ${formatTxid(minTxid)}`,
      );
    }
    if (pageSize !== before.pageSize) {
      throw new FormatError(cursors[i].name, `expected pages of ${before.pageSize} bytes, found ${pageSize}`);
    }
  }
  const last = cursors[cursors.length - 1].header;
  return {
    flags: LTX_FLAG_NO_CHECKSUM,
    pageSize: last.pageSize,
    commit: last.commit,
    minTxid: cursors[0].header.minTxid,
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

/** The page number of a cursor that has ended. */
const END = Number.POSITIVE_INFINITY;

/** Stands on one page of an input after another. */
class Cursor {
  readonly name: string;
  /** The page it stands on, or END. */
  pgno = 0;
  readonly #decoder: LtxDecoder;
  readonly #source: AsyncIterable<Uint8Array> | Iterable<Uint8Array>;
  #pieces: AsyncIterator<Uint8Array> | Iterator<Uint8Array> | undefined;

  constructor(input: LtxMergeInput) {
    this.name = input.name;
    this.#source = input.source;
    this.#decoder = new LtxDecoder(input.name);
  }

  get header(): LtxHeader {
    return this.#decoder.header!;
  }

  /** Reads the header and the first page. */
  async open(): Promise<void> {
    const source = this.#source;
    this.#pieces =
      Symbol.asyncIterator in source ? source[Symbol.asyncIterator]() : source[Symbol.iterator]();
    await this.fill();
  }

  /** Goes to the next page if the piece at hand has it whole; false if fill() must get more. */
  advance(): boolean {
    let event = this.#decoder.next();
    if (event === 'header') event = this.#decoder.next();
    if (event === 'page') this.pgno = this.#decoder.pgno;
    return event === 'page';
  }

  /** Goes to the next page, asking the source for as much as that takes. */
  async fill(): Promise<void> {
    do {
      const { value, done } = await this.#pieces!.next();
      if (done === true) {
        this.#decoder.end();
        this.pgno = END;
        return;
      }
      this.#decoder.push(value);
    } while (!this.advance());
  }

  copyTo(encoder: LtxEncoder): void {
    const { bytes, from, to } = this.#decoder.block;
    if (from === to) encoder.writePage(this.pgno, this.#decoder.page);
    else encoder.writeCompressedPage(this.pgno, this.#decoder.remainder, bytes, from, to);
  }

  async close(): Promise<void> {
    await this.#pieces?.return?.();
  }
}
