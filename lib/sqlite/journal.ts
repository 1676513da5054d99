/**
 * The rollback journal: what pages were before the transaction that is being written
 * (https://www.sqlite.org/fileformat2.html#the_rollback_journal). All numbers are big-endian.
 *
 * A journal is a row of segments, each beginning at a multiple of the sector size: a header that fills a sector, then
 * records of a page number, the page and a checksum. The name of a super-journal may end the file.
 *
 * Invariants:
 * 1. The header's magic is written, and synced if the application syncs at all, before the first page of the database
 *    is: without it nothing needs to be undone. Committing takes it away: the file is removed or cut to nothing, or the
 *    header is zeroed.
 * 2. A journal is hot, and its pages are the truth, if its header is valid, the database is not empty, nobody holds the
 *    RESERVED lock on it, and the super-journal that it names, if any, still exists. The file alone shows the first
 *    and the name.
 * 3. Undoing means: the database gets the first header's number of pages, and each record's page its old content.
 *    The page size is the journal's; after a VACUUM that was cut off, the database's own header can say another one.
 * 4. SQLite stops without complaint at the first thing that is not right; the scanner below stops where SQLite does.
 */

import { isPageSize, lockPage } from './database.js';

/** What is used of the sector that each header fills. */
export const JOURNAL_HEADER_SIZE = 28;
/** The last bytes of a journal that can hold the name of a super-journal. */
export const SUPER_JOURNAL_TAIL_SIZE = 16 + 512;

const MAGIC = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7] as const;
/** SQLite reads no header in a file shorter than its own sector. */
const SMALLEST_JOURNAL = 512;

export interface JournalHeader {
  /** Records that follow; -1: to the end of the file. */
  readonly recordCount: number;
  /** What the checksums of the records begin with. */
  readonly nonce: number;
  /** Size of the database in pages before the transaction. */
  readonly initialPageCount: number;
  /** Bytes: a header fills this much and begins at a multiple of it. */
  readonly sectorSize: number;
  /** Bytes a page; 0, from SQLite before 3.5.8, means the database's page size. */
  readonly pageSize: number;
}

/**
 * Decodes the header at `offset`, the start of a journal. Undefined if there is none that SQLite would follow: too few
 * bytes, zeroed, not yet synced, another magic, an impossible page or sector size. Such a journal is not hot.
 */
export function decodeJournalHeader(bytes: Uint8Array, offset = 0): JournalHeader | undefined {
  const header = decodeSegmentHeader(bytes, offset);
  if (header === undefined) return undefined;
  const { pageSize, sectorSize } = header;
  if (pageSize !== 0 && !isPageSize(pageSize)) return undefined;
  if (sectorSize < 32 || sectorSize > 65536 || (sectorSize & (sectorSize - 1)) !== 0) return undefined;
  return header;
}

/** Of a header after the first only the record count and the nonce mean anything. */
function decodeSegmentHeader(bytes: Uint8Array, offset: number): JournalHeader | undefined {
  if (offset + JOURNAL_HEADER_SIZE > bytes.length || !hasMagic(bytes, offset)) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset + offset, JOURNAL_HEADER_SIZE);
  const recordCount = view.getUint32(8);
  return {
    recordCount: recordCount === 0xffffffff ? -1 : recordCount,
    nonce: view.getUint32(12),
    initialPageCount: view.getUint32(16),
    sectorSize: view.getUint32(20),
    pageSize: view.getUint32(24),
  };
}

function hasMagic(bytes: Uint8Array, offset: number): boolean {
  for (let i = 0; i < MAGIC.length; i++) if (bytes[offset + i] !== MAGIC[i]) return false;
  return true;
}

/**
 * The path of the super-journal that a journal names at its end, or undefined if it names none (or one so damaged that
 * SQLite rolls back without asking for it).
 * @param tail the last SUPER_JOURNAL_TAIL_SIZE bytes of the journal, or all of a shorter one
 */
export function decodeSuperJournalName(tail: Uint8Array): string | undefined {
  const end = tail.length - 16;
  if (end < 0 || !hasMagic(tail, end + 8)) return undefined;
  const view = new DataView(tail.buffer, tail.byteOffset, tail.length);
  const length = view.getUint32(end);
  if (length === 0 || length > 512 || length > end) return undefined;
  const name = tail.subarray(end - length, end);
  let sum = 0;
  let high = 0;
  for (const byte of name) {
    sum += byte;
    high += byte >> 7;
  }
  // SQLite adds up C's `char`, which is signed on some machines and unsigned on others.
  const stored = view.getUint32(end + 4);
  if (stored !== sum && stored !== (sum - 256 * high) >>> 0) return undefined;
  const stop = name.indexOf(0);
  if (stop === 0) return undefined;
  return new TextDecoder().decode(stop < 0 ? name : name.subarray(0, stop));
}

/** What `JournalScanner.next` has gone past. `beyond`: a record of a page that the database did not have, to be ignored. */
export type JournalPiece = 'header' | 'record' | 'beyond' | 'end';

/**
 * Why a scan ended. `no header`: no further header where one could be, the regular end. `page number`: 0 or the lock
 * page, as the super-journal's name has it. `checksum`: a record that does not belong to this transaction, or a damaged
 * one. `truncated`: the file ends inside a record.
 */
export type JournalEnd = 'no header' | 'page number' | 'checksum' | 'truncated';

/**
 * Walks a journal of any size, piece by piece, as SQLite undoes a transaction after a crash: the caller brings `need`
 * bytes from `position` of the file, and `next` says what they are, until `need` is 0. Allocates nothing a record.
 */
export class JournalScanner {
  /** Offset in the file of the next piece. */
  position = 0;
  /** Bytes of the next piece; 0 at the end. */
  need = 0;
  /** Set once `need` is 0. */
  end: JournalEnd | undefined;
  /** The first header. Undefined at the end: nothing is to be undone. Its page size is never 0 here. */
  header: JournalHeader | undefined;
  /** The header of the present segment. */
  segment: JournalHeader | undefined;
  /** Of the last record; its page is at 4 from the record's start. */
  pgno = 0;
  readonly #fileSize: number;
  readonly #databasePageSize: number;
  #pageSize = 0;
  #sectorSize = SMALLEST_JOURNAL;
  #lockPage = 0;
  #nonce = 0;
  #recordsLeft = 0;

  /**
   * @param fileSize bytes of the journal
   * @param databasePageSize taken if the journal names no page size
   */
  constructor(fileSize: number, databasePageSize: number) {
    if (!isPageSize(databasePageSize)) throw new RangeError(`no page size: ${databasePageSize}`);
    this.#fileSize = fileSize;
    this.#databasePageSize = databasePageSize;
    this.#expectHeader();
  }

  /**
   * Goes past the next piece, whose `need` bytes are at `offset` of `bytes`. Throws RangeError if they are not there.
   * After `end` nothing moves any more.
   */
  next(bytes: Uint8Array, offset: number): JournalPiece {
    if (this.need === 0) return 'end';
    if (offset < 0 || offset + this.need > bytes.length) {
      throw new RangeError(`journal: ${this.need} bytes from ${offset} are not inside ${bytes.length}`);
    }
    return this.#recordsLeft === 0 ? this.#takeHeader(bytes, offset) : this.#takeRecord(bytes, offset);
  }

  #takeHeader(bytes: Uint8Array, offset: number): JournalPiece {
    const isFirst = this.header === undefined;
    const segment = isFirst ? decodeJournalHeader(bytes, offset) : decodeSegmentHeader(bytes, offset);
    if (segment === undefined) return this.#stop('no header');
    if (isFirst) {
      this.#pageSize = segment.pageSize === 0 ? this.#databasePageSize : segment.pageSize;
      this.#sectorSize = segment.sectorSize;
      this.#lockPage = lockPage(this.#pageSize);
      this.header = { ...segment, pageSize: this.#pageSize };
    }
    this.segment = segment;
    this.#nonce = segment.nonce;
    this.position += this.#sectorSize;
    this.#recordsLeft =
      segment.recordCount >= 0
        ? segment.recordCount
        : Math.max(0, Math.floor((this.#fileSize - this.#sectorSize) / (this.#pageSize + 8)));
    this.#expectNext();
    return 'header';
  }

  #takeRecord(bytes: Uint8Array, offset: number): JournalPiece {
    const pageSize = this.#pageSize;
    const pgno = uint32At(bytes, offset);
    if (pgno === 0 || pgno === this.#lockPage) return this.#stop('page number');
    // SQLite looks at the checksum only of what it is going to write.
    const isBeyond = pgno > this.header!.initialPageCount;
    if (!isBeyond) {
      let sum = this.#nonce;
      for (let i = pageSize - 200; i > 0; i -= 200) sum += bytes[offset + 4 + i];
      if (sum >>> 0 !== uint32At(bytes, offset + 4 + pageSize)) return this.#stop('checksum');
    }
    this.pgno = pgno;
    this.position += pageSize + 8;
    this.#recordsLeft--;
    this.#expectNext();
    return isBeyond ? 'beyond' : 'record';
  }

  #expectNext(): void {
    if (this.#recordsLeft === 0) {
      this.#expectHeader();
      return;
    }
    this.need = this.#pageSize + 8;
    if (this.position + this.need > this.#fileSize) this.#stop('truncated');
  }

  #expectHeader(): void {
    this.position = Math.ceil(this.position / this.#sectorSize) * this.#sectorSize;
    this.need = JOURNAL_HEADER_SIZE;
    const room = Math.max(this.#sectorSize, JOURNAL_HEADER_SIZE);
    if (this.position + room > this.#fileSize) this.#stop('no header');
  }

  #stop(end: JournalEnd): 'end' {
    this.end = end;
    this.need = 0;
    return 'end';
  }
}

function uint32At(bytes: Uint8Array, at: number): number {
  return ((bytes[at] << 24) | (bytes[at + 1] << 16) | (bytes[at + 2] << 8) | bytes[at + 3]) >>> 0;
}
