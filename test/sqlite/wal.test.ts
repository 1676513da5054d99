import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { FormatError } from '../../lib/errors.js';
import {
  decodeFrameHeader,
  decodeWalHeader,
  FrameScanner,
  isUnsummedFrame,
  WAL_HEADER_SIZE,
  WalChecksum,
} from '../../lib/sqlite/wal.js';
import { decodeWalIndex } from '../../lib/sqlite/wal-index.js';
import { randomSource } from '../support/random.js';
import { scratchFolder } from '../support/scratch.js';
import { expected, fixture, replayWal, sha256 } from './files.js';

/** The definition, word by word, in numbers without a limit. */
function plainChecksum(bytes: Uint8Array, bigEndian: boolean): [number, number] {
  const word = (at: number): bigint => {
    const four = [...bytes.subarray(at, at + 4)];
    if (!bigEndian) four.reverse();
    return four.reduce((value, byte) => (value << 8n) | BigInt(byte), 0n);
  };
  let s1 = 0n;
  let s2 = 0n;
  for (let at = 0; at < bytes.length; at += 8) {
    s1 = (s1 + word(at) + s2) & 0xffffffffn;
    s2 = (s2 + word(at + 4) + s1) & 0xffffffffn;
  }
  return [Number(s1), Number(s2)];
}

test('the checksum is the same at every alignment and in every division, in both byte orders', (t) => {
  const vector = new WalChecksum(false);
  vector.update(Uint8Array.of(1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0), 0, 16);
  assert.deepEqual([vector.s1, vector.s2], [7, 14]);

  const random = randomSource(t);
  const content = Uint8Array.from({ length: 1024 }, () => random.below(256));
  for (const bigEndian of [false, true]) {
    const whole = plainChecksum(content, bigEndian);
    for (let shift = 0; shift < 9; shift++) {
      const memory = new Uint8Array(1100);
      memory.set(content, 40 + shift);
      const view = memory.subarray(32);
      const checksum = new WalChecksum(bigEndian);
      const cut = 8 * random.below(128);
      checksum.update(view, 8 + shift, cut);
      const clone = checksum.clone();
      checksum.update(view, 8 + shift + cut, 1024 - cut);
      assert.deepEqual([checksum.s1, checksum.s2], whole);
      clone.update(content, cut, 1024 - cut);
      assert.deepEqual([clone.s1, clone.s2], whole);
    }
  }
});

test('the checksum refuses to read outside of the bytes it is given, and odd lengths', () => {
  const checksum = new WalChecksum(false, 5, 6);
  const inner = new Uint8Array(64).subarray(16, 48);
  for (const [offset, length] of [
    [0, 40],
    [32, 8],
    [-8, 8],
    [0, -8],
    [0, 12],
    [28, 8],
  ]) {
    assert.throws(() => checksum.update(inner, offset, length), RangeError, `${length} from ${offset}`);
  }
  assert.deepEqual([checksum.s1, checksum.s2], [5, 6]);
});

for (const name of ['spills.db', 'padded.db', 'wal-512.db', 'big-endian.db', 'unsummed.db']) {
  test(`replaying ${name}'s WAL makes what SQLite's recovery and checkpoint made`, () => {
    const database = fixture(name === 'big-endian.db' ? 'spills.db' : name);
    const wal = fixture(`${name}-wal`);
    assert.equal(decodeWalHeader(wal).bigEndianChecksum, name === 'big-endian.db');
    const replayed = replayWal(database, wal);
    assert.equal(sha256(replayed.database), expected[name].sha256);
    if (name === 'big-endian.db' || name === 'unsummed.db') return;
    const index = decodeWalIndex(fixture(`${name}-shm`));
    assert.ok(index.ok);
    assert.equal(replayed.committedFrames, index.header.maxFrame);
    assert.equal(replayed.checksum.s1, index.header.frameChecksum1);
    assert.equal(replayed.checksum.s2, index.header.frameChecksum2);
  });
}

test('behind the last commit lie frames that were rolled back, and behind the chain frames of the generation before', () => {
  const wal = fixture('spills.db-wal');
  const { validFrames, committedFrames } = replayWal(fixture('spills.db'), wal);
  const frameSize = 24 + decodeWalHeader(wal).pageSize;
  const frames = (wal.length - WAL_HEADER_SIZE) / frameSize;
  assert.ok(
    committedFrames < validFrames && validFrames < frames,
    `${committedFrames} ${validFrames} ${frames}`,
  );
  const beyond = decodeFrameHeader(wal, WAL_HEADER_SIZE + validFrames * frameSize);
  assert.equal(beyond.salt1 + 1, decodeWalHeader(wal).salt1);
});

test('a commit padded to its sector is one commit of repeated frames', () => {
  const { commits, committedFrames } = replayWal(fixture('padded.db'), fixture('padded.db-wal'));
  const index = decodeWalIndex(fixture('padded.db-shm'));
  assert.ok(index.ok);
  assert.equal(committedFrames, index.header.maxFrame);
  assert.ok(commits > index.header.changeCount, `${commits} ${index.header.changeCount}`);
});

test('commits that SQLite wrote without a checksum are in the index and not in the chain', () => {
  const wal = fixture('unsummed.db-wal');
  const index = decodeWalIndex(fixture('unsummed.db-shm'));
  assert.ok(index.ok);
  assert.equal(index.header.maxFrame, 5);
  assert.equal(replayWal(fixture('unsummed.db'), wal).validFrames, 0);
  assert.ok(isUnsummedFrame(decodeFrameHeader(wal, WAL_HEADER_SIZE)));
  assert.ok(!isUnsummedFrame(decodeFrameHeader(wal, WAL_HEADER_SIZE + 536)));

  const { salt1, salt2, frameChecksum1, frameChecksum2 } = index.header;
  const scanner = new FrameScanner(512, salt1, salt2, new WalChecksum(false));
  for (let frame = 2; frame <= 5; frame++) assert.ok(scanner.next(wal, WAL_HEADER_SIZE + (frame - 1) * 536));
  assert.deepEqual([scanner.checksum.s1, scanner.checksum.s2], [frameChecksum1, frameChecksum2]);
  assert.notEqual(expected['unsummed.db'].liveSha256, expected['unsummed.db'].sha256);
});

test('a frame with any one bit changed is not valid, and the chain stands where it stood', () => {
  const wal = fixture('wal-512.db-wal');
  const header = decodeWalHeader(wal);
  const checksum = new WalChecksum(false, header.checksum1, header.checksum2);
  const scanner = new FrameScanner(512, header.salt1, header.salt2, checksum);
  assert.ok(scanner.next(wal, WAL_HEADER_SIZE));
  const { pgno, commit } = scanner;
  const chain = [checksum.s1, checksum.s2];
  const second = WAL_HEADER_SIZE + scanner.frameSize;
  for (let bit = 0; bit < 8 * scanner.frameSize; bit++) {
    wal[second + (bit >> 3)] ^= 1 << (bit & 7);
    assert.equal(scanner.next(wal, second), false, `bit ${bit}`);
    wal[second + (bit >> 3)] ^= 1 << (bit & 7);
  }
  assert.deepEqual([checksum.s1, checksum.s2, scanner.pgno, scanner.commit], [...chain, pgno, commit]);
  assert.ok(scanner.next(wal, second));
});

test('a frame of page 0 is not valid, whatever its checksum', () => {
  const frame = new Uint8Array(24 + 512);
  const scanner = new FrameScanner(512, 0, 0, new WalChecksum(false));
  assert.equal(scanner.next(frame, 0), false);
});

test('a frame that its bytes do not hold wholly is never read', () => {
  const wal = fixture('wal-512.db-wal');
  const header = decodeWalHeader(wal);
  const checksum = new WalChecksum(false, header.checksum1, header.checksum2);
  const scanner = new FrameScanner(512, header.salt1, header.salt2, checksum);
  const cut = wal.subarray(WAL_HEADER_SIZE, WAL_HEADER_SIZE + scanner.frameSize - 1);
  assert.throws(() => scanner.next(cut, 0), RangeError);
  assert.throws(() => scanner.next(wal, -1), RangeError);
  assert.throws(() => decodeFrameHeader(wal.subarray(0, 23), 0), RangeError);
});

test('a WAL header that SQLite does not replay is refused, with what was found', () => {
  const sound = fixture('wal-512.db-wal').subarray(0, WAL_HEADER_SIZE);
  const change = (at: number, bytes: number[], mend = false): Uint8Array => {
    const header = sound.slice();
    header.set(bytes, at);
    if (!mend) return header;
    const checksum = new WalChecksum(false);
    checksum.update(header, 0, 24);
    new DataView(header.buffer).setUint32(24, checksum.s1);
    new DataView(header.buffer).setUint32(28, checksum.s2);
    return header;
  };
  const refused: [Uint8Array, RegExp][] = [
    [sound.subarray(0, 31), /expected 32 bytes, found 31/],
    [change(0, [0]), /expected magic .*, found 7f0682/],
    [change(0, [0xff, 0xff, 0xff, 0xff]), /found ffffffff/],
    [change(10, [3, 0]), /page size .*, found 768/],
    [change(8, [0x80]), /page size .*, found 2147484160/],
    [change(16, [sound[16] ^ 1]), /expected checksum [0-9a-f]{8} [0-9a-f]{8}, found/],
    [change(31, [sound[31] ^ 1]), /expected checksum/],
    [change(7, [0x19], true), /expected version 3007000, found 3007001/],
  ];
  for (const [bytes, message] of refused) {
    assert.throws(
      () => decodeWalHeader(bytes),
      (error) => error instanceof FormatError && message.test(error.message),
      String(message),
    );
  }
});

/**
 * Commits of all sizes with a cache of a few pages, rollbacks, savepoints, growing, shrinking and checkpoints; then
 * copies database, WAL and index as they lie, and, beside them, checkpoints.
 */
const WORKLOAD = `
import random, shutil, sqlite3, sys
folder, page_size, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
r = random.Random(seed)
path = folder + "/live.db"
c = sqlite3.connect(path, isolation_level=None)
for p in ("page_size=" + page_size, "auto_vacuum=" + str(seed % 3), "journal_mode=wal", "cache_size=4", "wal_autocheckpoint=0"):
    c.execute("PRAGMA " + p).fetchall()
c.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, body BLOB)")
body = lambda: r.randbytes(r.choice((10, 300, 3000)))
for step in range(60):
    kind = r.randrange(12)
    if kind == 0: c.execute("PRAGMA wal_checkpoint(" + r.choice(("PASSIVE", "RESTART", "TRUNCATE")) + ")").fetchall(); continue
    if kind == 1: c.execute("VACUUM" if r.random() < 0.3 else "PRAGMA incremental_vacuum").fetchall(); continue
    c.execute("BEGIN")
    for _ in range(r.choice((1, 1, 2, 20))):
        c.execute("SAVEPOINT s")
        c.execute(r.choice(("INSERT INTO t(body) VALUES(?)", "UPDATE t SET body=? WHERE id%5=1", "DELETE FROM t WHERE id%4=0 AND body<>?")), (body(),))
        c.execute("ROLLBACK TO s" if r.random() < 0.2 else "RELEASE s")
    c.execute("ROLLBACK" if r.random() < 0.2 else "COMMIT")
c.execute("INSERT INTO t(body) VALUES('last')")
for suffix in ("", "-wal", "-shm"):
    shutil.copyfile(path + suffix, folder + "/copy.db" + suffix)
d = sqlite3.connect(folder + "/copy.db")
shutil.copyfile(folder + "/copy.db", folder + "/before.db")
shutil.copyfile(folder + "/copy.db-wal", folder + "/before.db-wal")
shutil.copyfile(folder + "/copy.db-shm", folder + "/before.db-shm")
assert d.execute("PRAGMA integrity_check").fetchone() == ("ok",)
d.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
d.close()
`;

test('at every page size, replaying a WAL of random transactions equals SQLite, byte for byte', async (t) => {
  const random = randomSource(t);
  for (let pageSize = 512; pageSize <= 65536; pageSize *= 2) {
    const folder = await scratchFolder(t);
    const made = spawnSync('python3', ['-c', WORKLOAD, folder, String(pageSize), String(random.below(1e9))], {
      encoding: 'utf8',
    });
    assert.equal(made.status, 0, made.stderr);
    const read = (name: string): Uint8Array => new Uint8Array(readFileSync(join(folder, name)));
    const replayed = replayWal(read('before.db'), read('before.db-wal'));
    const index = decodeWalIndex(read('before.db-shm'));
    assert.ok(index.ok);
    assert.equal(index.header.pageSize, pageSize);
    // Not always as many: see invariant 4 of wal.ts.
    assert.ok(replayed.committedFrames <= index.header.maxFrame);
    assert.equal(sha256(replayed.database), sha256(read('copy.db')), `page size ${pageSize}`);
  }
});
