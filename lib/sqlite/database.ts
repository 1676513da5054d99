/**
 * The first 100 bytes of a SQLite database file, big-endian, as https://www.sqlite.org/fileformat2.html gives them.
 */

import { FormatError } from '../errors.js';

export const DATABASE_HEADER_SIZE = 100;

/** SQLite locks bytes from this offset on, so the page that holds it is never used. */
const PENDING_BYTE = 0x40000000;
const WHERE = 'the database header';

export interface DatabaseHeader {
  /** Bytes a page: a power of two, 512..65536. */
  readonly pageSize: number;
  /** 1: rollback journal, 2: WAL. Larger: written by a later SQLite, to be read only. */
  readonly writeVersion: number;
  /** 1: rollback journal, 2: WAL. */
  readonly readVersion: number;
  /** Bytes at the end of each page that SQLite leaves to extensions. */
  readonly reservedBytes: number;
  /** Moves with each transaction in rollback mode; in WAL mode it may stand still. */
  readonly changeCounter: number;
  /** Size in pages as the file says; right only if `versionValidFor` equals `changeCounter`. */
  readonly pageCount: number;
  readonly versionValidFor: number;
  /** SQLITE_VERSION_NUMBER of the last writer, e.g. 3040001. */
  readonly libraryVersion: number;
}

/** Whether SQLite can have pages of `n` bytes. */
export function isPageSize(n: number): boolean {
  return n >= 512 && n <= 65536 && (n & (n - 1)) === 0;
}

/** Number of the page that SQLite never uses; it exists only in databases larger than 1 GiB. */
export function lockPage(pageSize: number): number {
  return PENDING_BYTE / pageSize + 1;
}

/**
 * Size of a database in pages, by SQLite's own rule: what the header says where it can be trusted, else what the
 * file holds, a part of a page counted as one.
 * @param fileSize bytes
 */
export function databasePageCount(header: DatabaseHeader, fileSize: number): number {
  if (header.pageCount !== 0 && header.changeCounter === header.versionValidFor) return header.pageCount;
  return Math.ceil(fileSize / header.pageSize);
}

/**
 * Decodes the header at the start of `bytes` (100 bytes or more), refusing what SQLite refuses to open.
 * @throws FormatError
 */
export function decodeDatabaseHeader(bytes: Uint8Array): DatabaseHeader {
  if (bytes.length < DATABASE_HEADER_SIZE) {
    throw new FormatError(WHERE, `expected ${DATABASE_HEADER_SIZE} bytes, found ${bytes.length}`);
  }
  const magic = 'SQLite format 3\0';
  for (let i = 0; i < magic.length; i++) {
    if (bytes[i] !== magic.charCodeAt(i)) {
      throw new FormatError(WHERE, 'expected the text "SQLite format 3", found other bytes', {
        hint: 'This file is not a SQLite database, or it is encrypted.',
      });
    }
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, DATABASE_HEADER_SIZE);
  const storedPageSize = view.getUint16(16);
  const pageSize = storedPageSize === 1 ? 65536 : storedPageSize;
  if (!isPageSize(pageSize)) {
    throw new FormatError(
      WHERE,
      `expected a page size of 512 to 65536 bytes, a power of two, found ${pageSize}`,
    );
  }
  const readVersion = bytes[19];
  if (readVersion > 2) throw new FormatError(WHERE, `expected read version 1 or 2, found ${readVersion}`);
  if (bytes[21] !== 64 || bytes[22] !== 32 || bytes[23] !== 32) {
    throw new FormatError(
      WHERE,
      `expected the payload fractions 64, 32, 32, found ${bytes[21]}, ${bytes[22]}, ${bytes[23]}`,
    );
  }
  const reservedBytes = bytes[20];
  if (pageSize - reservedBytes < 480) {
    throw new FormatError(
      WHERE,
      `expected 480 usable bytes a page or more, found ${pageSize - reservedBytes}`,
    );
  }
  return {
    pageSize,
    writeVersion: bytes[18],
    readVersion,
    reservedBytes,
    changeCounter: view.getUint32(24),
    pageCount: view.getUint32(28),
    versionValidFor: view.getUint32(92),
    libraryVersion: view.getUint32(96),
  };
}
