import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FormatError } from '../../lib/errors.js';
import {
  decodeLtxHeader,
  encodeLtxHeader,
  formatTxid,
  ltxFileName,
  parseLtxFileName,
  parseTxid,
} from '../../lib/ltx/header.js';
import { makeHeader } from './pages.js';

test('a header stands in its 100 bytes as the format says', () => {
  const bytes = encodeLtxHeader(
    makeHeader({
      pageSize: 65536,
      commit: 0xfffffffe,
      minTxid: 0x0102030405060708n,
      maxTxid: 0xffffffffffffffffn,
      timestampMs: 0x18bcfe56800,
      walOffset: 0x1122334455,
      walSize: 4120,
      walSalt1: 0xdeadbeef,
      walSalt2: 0x01020304,
      nodeId: 0x8000000000000001n,
    }),
  );
  assert.equal(
    Buffer.from(bytes).toString('hex'),
    '4c54583100000002' +
      '00010000fffffffe' +
      '0102030405060708ffffffffffffffff' +
      '0000018bcfe56800' +
      '0000000000000000' +
      '00000011223344550000000000001018' +
      'deadbeef01020304' +
      '8000000000000001' +
      '00'.repeat(20),
  );
});

test('headers come back as they were', () => {
  for (const header of [
    makeHeader(),
    makeHeader({ pageSize: 512, commit: 1, walOffset: 0, timestampMs: 0 }),
    makeHeader({ minTxid: 2n, maxTxid: 0xfedcba9876543210n, walSalt1: 0xffffffff, walSalt2: 1, nodeId: 5n }),
    makeHeader({ flags: 0, minTxid: 2n, maxTxid: 2n, preApplyChecksum: 0x8000000000000005n }),
  ]) {
    assert.deepEqual(decodeLtxHeader(encodeLtxHeader(header)), header);
  }
});

test('a header that breaks a rule is refused, on writing as on reading', () => {
  const cases: [Parameters<typeof makeHeader>[0], number, number[], RegExp][] = [
    [{ flags: 1 }, 7, [1], /flags 0 or 2, found 0x1/],
    [{ flags: 6 }, 7, [6], /flags 0 or 2, found 0x6/],
    [{ pageSize: 1000 }, 10, [0x03, 0xe8], /page size/],
    [{ pageSize: 256 }, 10, [1, 0], /page size/],
    [{ pageSize: 131072 }, 9, [2, 0, 0], /page size/],
    [{ commit: 0 }, 12, [0, 0, 0, 0], /at least one page/],
    [{ minTxid: 0n }, 23, [0], /TXIDs/],
    [{ minTxid: 3n, maxTxid: 2n }, 23, [3], /at least 0000000000000003, found 000000000000000/],
    [{ timestampMs: -1 }, 32, new Array(8).fill(255), /timestamp/],
    [{ timestampMs: 8.64e15 + 2 }, 32, [0x7f], /timestamp/],
    [{ walOffset: -1 }, 48, new Array(8).fill(255), /WAL offset/],
    [{ walSize: -1 }, 56, new Array(8).fill(255), /WAL size/],
    [{ walSize: 2 ** 60 }, 56, [0x10], /WAL size/],
    [{ walOffset: 0, walSize: 5 }, 48, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5], /WAL offset beside/],
    [{ preApplyChecksum: 1n << 63n }, 40, [0x80], /no pre-apply checksum/],
  ];
  for (const [over, at, bytes, reason] of cases) {
    const where = JSON.stringify(over, (_, value) => (typeof value === 'bigint' ? `${value}` : value));
    const isRefusal = (error: unknown) => error instanceof FormatError && reason.test(error.message);
    assert.throws(() => encodeLtxHeader(makeHeader(over)), isRefusal, `writing ${where}`);
    const damaged = encodeLtxHeader(makeHeader());
    damaged.set(bytes, at);
    assert.throws(() => decodeLtxHeader(damaged), isRefusal, `reading ${where}`);
  }
});

test('a file with checksums of the database must have one before its first transaction', () => {
  const header = { flags: 0, minTxid: 2n, maxTxid: 2n };
  assert.throws(() => encodeLtxHeader(makeHeader({ ...header, preApplyChecksum: 0n })), /pre-apply checksum/);
  assert.throws(() => encodeLtxHeader(makeHeader({ ...header, preApplyChecksum: 7n })), /top bit/);
});

test('what is no header is said to be none', () => {
  assert.throws(() => decodeLtxHeader(new Uint8Array(99)), /expected 100 bytes, found 99/);
  assert.throws(() => decodeLtxHeader(Buffer.from('SQLite format 3\0'.padEnd(100))), /magic number/);
});

test('TXIDs are written with 16 hex digits and lose no bit', () => {
  assert.equal(formatTxid(1n), '0000000000000001');
  assert.equal(formatTxid(0xffffffffffffffffn), 'ffffffffffffffff');
  assert.equal(parseTxid('fedcba9876543210'), 0xfedcba9876543210n);
  for (const text of [
    '',
    '1',
    '000000000000000g',
    '00000000000000001',
    '0x00000000000001',
    'FEDCBA9876543210',
  ]) {
    assert.equal(parseTxid(text), undefined, text);
  }
});

test('only names of LTX files are taken for such', () => {
  const name = '0000000000000001-00000000000000ff.ltx';
  assert.equal(ltxFileName(1n, 255n), name);
  assert.deepEqual(parseLtxFileName(name), { minTxid: 1n, maxTxid: 255n });
  for (const other of [
    `${name}.tmp`,
    `./${name}`,
    '0000000000000002-0000000000000001.ltx',
    '0000000000000000-0000000000000001.ltx',
    '1-2.ltx',
    '',
  ]) {
    assert.equal(parseLtxFileName(other), undefined, other);
  }
});
