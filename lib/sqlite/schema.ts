/**
 * The names of a database's tables, read from the b-tree of sqlite_schema, whose root is page 1: enough to tell one
 * application's database from another's. Pages may be damaged or hostile; what cannot be read is left out.
 */

import { DATABASE_HEADER_SIZE } from './database.js';

const INTERIOR_TABLE = 5;
const LEAF_TABLE = 13;
/** Pages looked at; a schema of thousands of tables has fewer. */
const MOST_PAGES = 256;

/**
 * @param readPage the content of a page; undefined if it is not at hand
 * @returns the names, without those that begin with `sqlite_`
 */
export async function readTableNames(
  readPage: (pgno: number) => Promise<Uint8Array | undefined>,
): Promise<Set<string>> {
  const names = new Set<string>();
  const seen = new Set<number>();
  const waiting = [1];
  for (let pgno = waiting.pop(); pgno !== undefined && seen.size < MOST_PAGES; pgno = waiting.pop()) {
    if (pgno === 0 || seen.has(pgno)) continue;
    seen.add(pgno);
    const page = await readPage(pgno);
    if (page === undefined) continue;
    const at = pgno === 1 ? DATABASE_HEADER_SIZE : 0;
    const view = new DataView(page.buffer, page.byteOffset, page.length);
    const kind = page[at];
    if (kind === INTERIOR_TABLE) {
      waiting.push(view.getUint32(at + 8));
      for (const cell of cellsOf(view, at, 12)) waiting.push(view.getUint32(cell));
    } else if (kind === LEAF_TABLE) {
      for (const cell of cellsOf(view, at, 8)) {
        const name = tableName(page, cell);
        if (name !== undefined && !name.startsWith('sqlite_')) names.add(name);
      }
    }
  }
  return names;
}

/** Where the cells of a b-tree page are; at least 4 bytes stand behind each. */
function* cellsOf(view: DataView, headerAt: number, headerSize: number): Generator<number> {
  const count = view.getUint16(headerAt + 3);
  for (let i = 0; i < count; i++) {
    const pointer = headerAt + headerSize + 2 * i;
    if (pointer + 2 > view.byteLength) return;
    const cell = view.getUint16(pointer);
    if (cell + 4 <= view.byteLength) yield cell;
  }
}

/** The name in a row of sqlite_schema (type, name, …), if that row is a table's. */
function tableName(page: Uint8Array, cell: number): string | undefined {
  const reader = new VarintReader(page, cell);
  reader.next(); // Size of the payload.
  reader.next(); // Row id.
  const recordAt = reader.at;
  const headerSize = reader.next();
  const typeSize = textSize(reader.next());
  const nameSize = textSize(reader.next());
  const typeAt = recordAt + headerSize;
  if (typeSize === undefined || nameSize === undefined) return undefined;
  if (typeAt + typeSize + nameSize > page.length) return undefined;
  if (textOf(page, typeAt, typeSize) !== 'table') return undefined;
  return textOf(page, typeAt + typeSize, nameSize);
}

/** Bytes of a text with this serial type; undefined for other types. */
function textSize(serialType: number): number | undefined {
  return serialType >= 13 && serialType % 2 === 1 ? (serialType - 13) / 2 : undefined;
}

/** The same for UTF-8 and both of UTF-16 where the text is ASCII, and the same for equal texts everywhere. */
function textOf(page: Uint8Array, at: number, size: number): string {
  return Buffer.from(page.buffer, page.byteOffset + at, size)
    .toString('latin1')
    .replaceAll('\0', '');
}

/** SQLite's varints: big-endian, seven bits a byte, at most nine bytes. Beyond the end of the page it reads zeros. */
class VarintReader {
  at: number;
  readonly #bytes: Uint8Array;

  constructor(bytes: Uint8Array, at: number) {
    this.#bytes = bytes;
    this.at = at;
  }

  next(): number {
    let value = 0;
    for (let i = 0; i < 9; i++) {
      const byte = this.#bytes[this.at++] ?? 0;
      value = value * 0x80 + (byte & 0x7f);
      if (byte < 0x80) break;
    }
    return value;
  }
}
