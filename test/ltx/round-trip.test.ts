import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Crc64 } from '../../lib/ltx/crc64.js';
import { decodeLtx } from '../../lib/ltx/decoder.js';
import { LtxEncoder } from '../../lib/ltx/encoder.js';
import type { LtxHeader } from '../../lib/ltx/header.js';

const header: LtxHeader = {
  flags: 2,
  pageSize: 4096,
  commit: 300,
  minTxid: 1n,
  maxTxid: 1n,
  timestampMs: 1_700_000_000_123,
  preApplyChecksum: 0n,
  walOffset: 32,
  walSize: 0,
  walSalt1: 0,
  walSalt2: 0,
  nodeId: 0n,
};

test('CRC-64 has the check value of its definition', () => {
  const crc = new Crc64();
  crc.update(new TextEncoder().encode('123456789'));
  assert.equal(crc.value(), 0xb90956c775a41001n);
});

test('what the encoder writes the decoder reads, in pieces of any size', async () => {
  const pages = new Map<number, Uint8Array>();
  for (let pgno = 1; pgno <= header.commit; pgno++) {
    const page = new Uint8Array(header.pageSize);
    for (let i = 0; i < page.length; i++)
      page[i] = pgno % 3 === 0 ? Math.imul(i + pgno, 0x9e3779b1) >>> 24 : (i * pgno) & 0x1f;
    pages.set(pgno, page);
  }
  const encoder = new LtxEncoder(header);
  const blocks: Uint8Array[] = [];
  for (const [pgno, page] of pages) {
    encoder.writePage(pgno, page);
    for (let block = encoder.take(); block !== undefined; block = encoder.take()) blocks.push(block);
  }
  blocks.push(encoder.finish());
  const file = Buffer.concat(blocks);
  assert.equal(encoder.bytesOut, file.length);
  for (const size of [1, 7, 4096, 65536, file.length]) {
    const pieces: Uint8Array[] = [];
    for (let at = 0; at < file.length; at += size) pieces.push(file.subarray(at, at + size));
    const seen = new Map<number, Uint8Array>();
    const summary = await decodeLtx('a.ltx', pieces, { page: (pgno, page) => seen.set(pgno, page.slice()) });
    assert.deepEqual(summary.header, header);
    assert.equal(summary.bytes, file.length);
    assert.equal(summary.pageCount, 300);
    for (const [pgno, page] of pages) assert.deepEqual(seen.get(pgno), page);
  }
});
