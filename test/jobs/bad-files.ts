/** A replica of two files, and every way in which one of them can be wrong. */

import { ltxPath } from '../../lib/replica/names.js';
import type { Replica } from '../../lib/replica/replica.js';
import { lz4Frame } from '../ltx/frames.js';
import { compressed, type Forgery, forgeLtx } from '../support/forged-ltx.js';

const PAGE_SIZE = 512;
/** A snapshot of three pages, then a change of two. */
export const SNAPSHOT = { level: 9, minTxid: 1n, maxTxid: 1n };
export const CHANGE = { level: 0, minTxid: 2n, maxTxid: 2n };

export function filled(value: number, size = PAGE_SIZE): Uint8Array {
  return new Uint8Array(size).fill(value);
}

/** A page 1 as SQLite writes it. */
export function pageOne(pageCount: number, pageSize = PAGE_SIZE): Uint8Array {
  const page = Buffer.alloc(pageSize);
  page.write('SQLite format 3\0');
  page.writeUInt16BE(pageSize === 65536 ? 1 : pageSize, 16);
  page.set([2, 2, 0, 64, 32, 32], 18);
  page.writeUInt32BE(7, 24);
  page.writeUInt32BE(pageCount, 28);
  page.writeUInt32BE(7, 92);
  return new Uint8Array(page);
}

function pagesOf(...pgnos: number[]): { pgno: number; page: Uint8Array }[] {
  return pgnos.map((pgno) => ({ pgno, page: pgno === 1 ? pageOne(3) : filled(pgno) }));
}

export function snapshot(over: Partial<Forgery> = {}): Buffer {
  return forgeLtx({ pages: pagesOf(1, 2, 3), ...over });
}

export function change(over: Partial<Forgery> = {}): Buffer {
  return forgeLtx({ pages: pagesOf(2, 3), minTxid: 2n, ...over });
}

export interface BadFile {
  readonly what: string;
  /** The file in the place of the snapshot or of the change. */
  readonly snapshot?: Buffer;
  readonly change?: Buffer;
  /** What is said of it, after the file's name. */
  readonly says: RegExp;
  /** The file is sound by itself: only its name or the files around it show what is wrong. */
  readonly soundAlone?: true;
}

const noise = Uint8Array.from({ length: PAGE_SIZE }, (_, i) => (i * 73 + (i >> 3)) & 255);
const sound = change();

export const BAD_FILES: readonly BadFile[] = [
  { what: 'magic', change: change({ magic: 'LTX?' }), says: /, header: expected the magic number/ },
  { what: 'version', change: change({ magic: 'LTX2' }), says: /, header: .*found 0x4c545832/ },
  { what: 'flags', change: change({ flags: 6 }), says: /, header: expected flags 0 or 2, found 0x6/ },
  { what: 'page size', change: change({ pageSize: 1000 }), says: /, header: expected a page size .*1000/ },
  { what: 'huge page size', change: change({ pageSize: 2 ** 31 }), says: /header: .*found 2147483648/ },
  { what: 'size 0', change: change({ commit: 0 }), says: /header: expected a database of at least one/ },
  { what: 'TXIDs', change: change({ minTxid: 3n, maxTxid: 2n }), says: /a max TXID of at least 0{15}3/ },
  { what: 'TXID 0', change: change({ minTxid: 0n, maxTxid: 2n }), says: /TXIDs from 1 to 2\^64-1, found 0/ },
  { what: 'time', change: change({ timestampMs: -5n }), says: /header: expected a timestamp .*found -5/ },
  { what: 'checksum', change: change({ preApplyChecksum: 1n }), says: /no pre-apply checksum, found 0x1/ },
  { what: 'WAL size', change: change({ walSize: 9n }), says: /expected a WAL offset beside/ },
  {
    what: 'another name',
    change: change({ maxTxid: 3n }),
    says: /: expected the TXIDs of its name, found 0{15}2 to 0{15}3 in its header/,
    soundAlone: true,
  },
  { what: 'beyond', change: change({ commit: 2 }), says: /, page 3: expected pages up to 2/ },
  { what: 'twice', change: change({ pages: pagesOf(2, 2) }), says: /, page 2: expected ascending/ },
  { what: 'order', change: change({ pages: pagesOf(3, 2), commit: 3 }), says: /, page 2: .*after page 3/ },
  { what: 'no number', change: change({ pages: pagesOf(0, 3) }), says: /, page 0: expected a page number/ },
  { what: 'no page 1', snapshot: snapshot({ pages: pagesOf(2, 3) }), says: /, page 2: expected page 1/ },
  { what: 'no page 2', snapshot: snapshot({ pages: pagesOf(1, 3) }), says: /, page 3: expected page 2/ },
  {
    what: 'no last page',
    snapshot: snapshot({ pages: pagesOf(1, 2), commit: 3 }),
    says: /: expected every page up to 3 in a snapshot, found the end before page 3/,
  },
  {
    what: 'a snapshot of 17 TB',
    snapshot: snapshot({ commit: 2 ** 32 - 1 }),
    says: /expected the header of a database of 4294967295 pages, found 3|every page up to 4294967295/,
  },
  {
    what: 'page flags',
    change: change({ pages: [{ pgno: 2, page: filled(2), flags: 2 }], commit: 3 }),
    says: /, page 2 \(byte 100\): expected page flags 0 or 1, found 2/,
  },
  {
    what: 'an empty block',
    change: change({ pages: [{ pgno: 2, page: filled(2), stored: filled(0, 0) }], commit: 3 }),
    says: /, page 2 .*expected an LZ4 block of 1 to 530 bytes, found 0/,
  },
  {
    what: 'a huge block',
    change: change({ pages: [{ pgno: 2, page: filled(2), size: 2 ** 32 - 1 }], commit: 3 }),
    says: /, page 2 .*expected an LZ4 block of 1 to 530 bytes, found 4294967295/,
  },
  {
    what: 'a malformed block',
    change: change({ pages: [{ pgno: 2, page: noise, stored: filled(0xff, 40) }], commit: 3 }),
    says: /, page 2 .*LZ4 block of 512 bytes, found it malformed at its byte/,
  },
  {
    what: 'a block of half a page',
    change: change({ pages: [{ pgno: 2, page: filled(2), stored: blockOf(filled(2, 256)) }], commit: 3 }),
    says: /, page 2 .*expected 512 bytes in the LZ4 block, found 256/,
  },
  {
    what: 'a block of two pages',
    change: change({ pages: [{ pgno: 2, page: filled(2), stored: compressed(filled(2, 1024)) }], commit: 3 }),
    says: /, page 2 .*LZ4 block of 512 bytes, found it malformed/,
  },
  {
    what: 'no frame',
    change: change({ pages: [{ pgno: 2, page: noise, flags: 0, stored: noise }], commit: 3 }),
    says: /, page 2 .*expected an LZ4 frame, found magic number/,
  },
  {
    what: 'a frame of half a page',
    change: change({
      pages: [{ pgno: 2, page: filled(2), flags: 0, stored: lz4Frame(filled(2, 256)) }],
      commit: 3,
    }),
    says: /, page 2 .*expected 512 bytes in the LZ4 frame, found 256/,
  },
  {
    what: 'a frame with another hash',
    change: change({
      pages: [{ pgno: 2, page: noise, flags: 0, stored: lz4Frame(spoilt(noise)) }],
      commit: 3,
    }),
    says: /, trailer: expected contents with checksum/,
  },
  {
    what: 'index: page',
    change: change({ index: ([a, b]) => [[1, a[1], a[2]], b] }),
    says: /, page index: expected page 2 where that page is/,
  },
  {
    what: 'index: offset',
    change: change({ index: ([a, b]) => [a, [b[0], b[1] + 1, b[2]]] }),
    says: /, page index: expected page 3 where that page is/,
  },
  {
    what: 'index: size',
    change: change({ index: ([a, b]) => [[a[0], a[1], a[2] - 1], b] }),
    says: /, page index: expected page 2 where that page is/,
  },
  { what: 'index: missing', change: change({ index: ([a]) => [a] }), says: /, page index: expected page 3/ },
  {
    what: 'index: more',
    change: change({ index: ([a, b]) => [a, b, [4, b[1], b[2]]] }),
    says: /, page index: expected its end mark and its length/,
  },
  {
    what: 'index: length',
    change: change({ indexLength: 2n ** 62n }),
    says: /, page index: expected its end mark and its length/,
  },
  {
    what: 'trailer: database checksum',
    change: change({ postApplyChecksum: 1n }),
    says: /, trailer: expected no post-apply checksum, found 0{15}1/,
  },
  { what: 'trailer', change: flipped(sound, sound.length - 1), says: /, trailer: expected contents with/ },
  { what: 'a flipped bit', change: flipped(sound, 99), says: /, trailer: expected contents with checksum/ },
  {
    what: 'more',
    change: Buffer.concat([sound, sound]),
    says: /expected the end of the file at byte \d+, found/,
  },
  {
    what: 'other pages',
    change: change({ pages: [{ pgno: 2, page: filled(2, 1024) }] }),
    says: /: expected pages of 512 bytes as in the files before it, found 1024/,
    soundAlone: true,
  },
  {
    what: 'growth without its pages',
    change: change({ pages: pagesOf(2, 6) }),
    says: /, page 4: expected every page from 4 to 6, by which the database grew, found this one missing/,
    soundAlone: true,
  },
  {
    what: 'a growth of 17 TB',
    change: change({ pages: pagesOf(2), commit: 2 ** 32 - 2, pageSize: PAGE_SIZE }),
    says: /, page 4: expected every page from 4 to 4294967294/,
    soundAlone: true,
  },
  {
    what: 'page 1 of another database: size',
    change: change({ pages: [{ pgno: 1, page: pageOne(9) }], commit: 3 }),
    says: /, page 1: expected the header of a database of 3 pages, found 9/,
    soundAlone: true,
  },
  {
    what: 'page 1 of another database: page size',
    change: change({ pages: [{ pgno: 1, page: pageOne(3, 4096).subarray(0, 512) }], commit: 3 }),
    says: /, page 1: expected the header of a database with pages of 512 bytes, found 4096/,
    soundAlone: true,
  },
  {
    what: 'a change of size without page 1',
    change: change({ pages: pagesOf(2), commit: 2 }),
    says: /: expected page 1 beside a change of size, found a database of 2 pages whose page 1 says 3/,
    soundAlone: true,
  },
];

function blockOf(content: Uint8Array): Uint8Array {
  // Literals only.
  const lengths = [
    ...Array<number>(Math.floor((content.length - 15) / 255)).fill(255),
    (content.length - 15) % 255,
  ];
  return Uint8Array.from([0xf0, ...lengths, ...content]);
}

function spoilt(page: Uint8Array): Uint8Array {
  return Uint8Array.from(page, (byte, i) => (i === 300 ? byte ^ 1 : byte));
}

export function flipped(bytes: Buffer, at: number): Buffer {
  const copy = Buffer.from(bytes);
  copy[at] ^= 1;
  return copy;
}

/** Puts the two files, one of them bad; the name of the bad one. */
export async function putFiles(replica: Replica, bad: BadFile): Promise<string> {
  const timestampMs = 1_700_000_000_000;
  await replica.write({ ...SNAPSHOT, timestampMs }, () => [bad.snapshot ?? snapshot()]);
  await replica.write({ ...CHANGE, timestampMs }, () => [bad.change ?? change()]);
  return ltxPath(bad.snapshot === undefined ? CHANGE : SNAPSHOT);
}
