/** Pages and LTX files made up for tests, with what they hold known as a plain Map. */

import { decodeLtx } from '../../lib/ltx/decoder.js';
import { LtxEncoder } from '../../lib/ltx/encoder.js';
import { LTX_FLAG_NO_CHECKSUM, type LtxHeader } from '../../lib/ltx/header.js';
import { lockPage } from '../../lib/sqlite/database.js';
import type { Random } from '../support/random.js';

export const PAGE_SIZES = [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536] as const;

export type Pages = Map<number, Uint8Array>;

const KINDS = ['zeros', 'noise', 'text', 'periodic', 'sparse', 'runs'] as const;

/** A page of one of the kinds that compress differently. */
export function makePage(
  size: number,
  random: Random,
  kind: (typeof KINDS)[number] = random.pick(KINDS),
): Uint8Array {
  const page = new Uint8Array(size);
  switch (kind) {
    case 'zeros':
      return page;
    case 'noise':
      return random.bytes(size);
    case 'text': {
      const words = ['commit ', 'frame ', 'page ', 'salt ', 'wal ', '0123456789', 'a', '\n'];
      for (let at = 0; at < size; ) at = put(page, at, new TextEncoder().encode(random.pick(words)));
      return page;
    }
    case 'periodic': {
      // Distances from 1 up, also beyond what a match may reach back.
      const period = random.bytes(1 + random.below(random.pick([8, 40, size])));
      for (let at = 0; at < size; ) at = put(page, at, period);
      return page;
    }
    case 'sparse':
      for (let i = 1 + random.below(20); i > 0; i--) page[random.below(size)] = random.below(256);
      return page;
    case 'runs':
      // Literals and matches of all lengths, about those where another length byte begins.
      for (let at = 0; at < size; ) {
        at = put(page, at, random.bytes(random.pick([1, 14, 15, 16, 269, 270, 271, 500])));
        const length = Math.min(random.pick([3, 4, 18, 19, 20, 273, 274, 275, 600]), size - at);
        const back = 1 + random.below(at);
        for (const end = at + length; at < end; at++) page[at] = page[at - back];
      }
      return page;
  }
}

function put(page: Uint8Array, at: number, bytes: Uint8Array): number {
  page.set(bytes.subarray(0, page.length - at), at);
  return at + bytes.length;
}

export function makeHeader(over: Partial<LtxHeader> = {}): LtxHeader {
  return {
    flags: LTX_FLAG_NO_CHECKSUM,
    pageSize: 1024,
    commit: 8,
    minTxid: 1n,
    maxTxid: 1n,
    timestampMs: 1_767_225_600_123,
    preApplyChecksum: 0n,
    walOffset: 32,
    walSize: 0,
    walSalt1: 0,
    walSalt2: 0,
    nodeId: 0n,
    ...over,
  };
}

/** Every page that a snapshot with this header has. */
export function snapshotPages(header: LtxHeader, random: Random): Pages {
  const pages: Pages = new Map();
  for (let pgno = 1; pgno <= header.commit; pgno++) {
    if (pgno !== lockPage(header.pageSize)) pages.set(pgno, makePage(header.pageSize, random));
  }
  return pages;
}

/** The file with these pages; what take() gives is taken after `takeEvery` pages. */
export function encodeFile(header: LtxHeader, pages: Pages, takeEvery = 1): Buffer {
  const encoder = new LtxEncoder(header);
  const blocks: Uint8Array[] = [];
  for (const [pgno, page] of pages) {
    encoder.writePage(pgno, page);
    if (encoder.pageCount % takeEvery !== 0) continue;
    for (let block = encoder.take(); block !== undefined; block = encoder.take()) blocks.push(block);
  }
  blocks.push(encoder.finish());
  return Buffer.concat(blocks);
}

export function* inPieces(file: Uint8Array, size: number): Generator<Uint8Array> {
  for (let at = 0; at < file.length; at += size) {
    // A copy that is overwritten afterwards: a piece is the decoder's only until it asks for the next.
    const piece = new Uint8Array(file.subarray(at, at + size));
    yield piece;
    piece.fill(0xa5);
  }
}

export async function decodeFile(file: Uint8Array, pieceSize = file.length, name = 'test.ltx') {
  const pages: Pages = new Map();
  const summary = await decodeLtx(name, inPieces(file, pieceSize), {
    page: (pgno, page) => {
      pages.set(pgno, page.slice());
    },
  });
  return { ...summary, pages };
}
