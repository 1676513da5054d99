import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  decodeFrameHeader,
  decodeWalHeader,
  FRAME_HEADER_SIZE,
  WAL_HEADER_SIZE,
} from '../../lib/sqlite/wal.js';
import { encodeWalHeader, FrameEncoder } from '../../lib/sqlite/wal-encoder.js';
import { fixture } from './files.js';

for (const name of ['wal-512.db-wal', 'big-endian.db-wal', 'padded.db-wal']) {
  test(`header and frames of ${name} are encoded as SQLite wrote them`, () => {
    const written = fixture(name);
    const header = decodeWalHeader(written);
    const encoded = new Uint8Array(written.length);
    const chain = encodeWalHeader(header, encoded);
    const { pageSize, salt1, salt2 } = header;
    const encoder = new FrameEncoder(pageSize, salt1, salt2, chain);
    let at = WAL_HEADER_SIZE;
    for (; at + encoder.frameSize <= written.length; at += encoder.frameSize) {
      const frame = decodeFrameHeader(written, at);
      if (frame.salt1 !== salt1 || frame.salt2 !== salt2) break;
      encoded.set(written.subarray(at + FRAME_HEADER_SIZE, at + encoder.frameSize), at + FRAME_HEADER_SIZE);
      encoder.seal(encoded, at, frame.pgno, frame.commit);
    }
    assert.ok(at > WAL_HEADER_SIZE);
    assert.deepEqual(encoded.subarray(0, at), written.subarray(0, at));
  });
}
