import assert from 'node:assert/strict';
import { test } from 'node:test';
import { WalChecksum } from '../../lib/sqlite/wal.js';
import { decodeWalIndex, WAL_INDEX_HEADER_SIZE } from '../../lib/sqlite/wal-index.js';
import { randomSource } from '../support/random.js';
import { expected, fixture } from './files.js';

const STATES = [
  'index-commits',
  'index-reader',
  'index-truncated',
  'index-recovered',
  'index-recovered-empty',
];

function reasonOf(bytes: Uint8Array): string {
  const result = decodeWalIndex(bytes);
  return result.ok ? 'ok' : result.reason;
}

/** Changes bytes of both copies and, if asked to, makes their checksum right again. */
function changed(sound: Uint8Array, at: number, bytes: number[], mend: boolean): Uint8Array {
  const index = sound.slice();
  index.set(bytes, at);
  if (mend) {
    const checksum = new WalChecksum(false);
    checksum.update(index, 0, 40);
    new DataView(index.buffer).setUint32(40, checksum.s1, true);
    new DataView(index.buffer).setUint32(44, checksum.s2, true);
  }
  index.copyWithin(48, 0, 48);
  return index;
}

test('each state of a real index is decoded as SQLite left it', () => {
  for (const name of STATES) {
    const result = decodeWalIndex(fixture(`${name}.shm`));
    assert.ok(result.ok, name);
    const { header } = result;
    const { maxFrame, changeCount, backfill } = expected[`${name}.shm`];
    assert.deepEqual(
      [header.maxFrame, header.changeCount, header.backfill],
      [maxFrame, changeCount, backfill],
    );
    assert.equal(header.bigEndianChecksum, false);
    assert.equal(header.pageSize, name === 'index-recovered-empty' ? 0 : 1024, name);
    assert.equal(header.readMarks.length, 5);
    assert.equal(header.readMarks[0], 0);
  }
  const reader = decodeWalIndex(fixture('index-reader.shm'));
  assert.ok(reader.ok && reader.header.readMarks.includes(expected['index-reader.shm'].backfill));
  const recovered = decodeWalIndex(fixture('index-recovered.shm'));
  assert.ok(recovered.ok);
  assert.equal(recovered.header.backfillAttempted, recovered.header.maxFrame);
});

test('salts are those of the WAL header', () => {
  for (const name of ['spills.db', 'padded.db', 'wal-512.db']) {
    const wal = fixture(`${name}-wal`);
    const result = decodeWalIndex(fixture(`${name}-shm`));
    assert.ok(result.ok);
    const view = new DataView(wal.buffer);
    assert.deepEqual([result.header.salt1, result.header.salt2], [view.getUint32(16), view.getUint32(20)]);
  }
});

test('an index of a machine with the other byte order is decoded alike', () => {
  const little = fixture('index-reader.shm');
  const big = little.slice();
  const from = new DataView(little.buffer);
  const to = new DataView(big.buffer);
  for (const copy of [0, 48]) {
    for (const at of [0, 4, 8, 16, 20, 24, 28]) to.setUint32(copy + at, from.getUint32(copy + at, true));
    to.setUint16(copy + 14, from.getUint16(copy + 14, true));
    const checksum = new WalChecksum(true);
    checksum.update(big, 0, 40);
    to.setUint32(copy + 40, checksum.s1);
    to.setUint32(copy + 44, checksum.s2);
  }
  for (const at of [96, 100, 104, 108, 112, 116, 128]) to.setUint32(at, from.getUint32(at, true));
  assert.deepEqual(decodeWalIndex(big), decodeWalIndex(little));
});

test('65536 is a page size of the index too', () => {
  const result = decodeWalIndex(changed(fixture('index-commits.shm'), 14, [1, 0], true));
  assert.ok(result.ok);
  assert.equal(result.header.pageSize, 65536);
});

test('a header that does not govern says why', () => {
  const sound = fixture('index-commits.shm');
  assert.equal(reasonOf(sound.subarray(0, WAL_INDEX_HEADER_SIZE - 1)), 'short');
  assert.equal(reasonOf(new Uint8Array(3)), 'short');
  assert.equal(reasonOf(new Uint8Array(WAL_INDEX_HEADER_SIZE)), 'uninitialised');
  assert.equal(reasonOf(changed(sound, 12, [0], true)), 'uninitialised');
  assert.equal(reasonOf(changed(sound, 0, [0x19], true)), 'version');
  for (let at = 0; at < 48; at++) {
    const torn = sound.slice();
    torn[at] ^= 0x10;
    assert.equal(reasonOf(torn), 'torn', `byte ${at}`);
    if (at === 12) continue; // whether it is initialised
    assert.equal(reasonOf(changed(sound, at, [sound[at] ^ 0x10], false)), 'checksum', `byte ${at}`);
  }
});

test('no bytes make the decoder throw', (t) => {
  const random = randomSource(t);
  for (let round = 0; round < 2000; round++) {
    const bytes = fixture('index-reader.shm').slice(0, random.below(200));
    for (let i = random.below(4); i > 0; i--) bytes[random.below(bytes.length + 1)] = random.below(256);
    assert.match(reasonOf(bytes), /^(ok|short|torn|uninitialised|version|checksum)$/);
  }
});
