import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FormatError } from '../../lib/errors.js';
import { databasePageCount, decodeDatabaseHeader, isPageSize, lockPage } from '../../lib/sqlite/database.js';
import { randomSource } from '../support/random.js';
import { expected, fixture } from './files.js';

test('headers of every kind of database say what SQLite says', () => {
  for (const name of ['page-512.db', 'page-4096.db', 'page-65536.db', 'reserved-32.db']) {
    const file = fixture(name);
    const header = decodeDatabaseHeader(file);
    assert.equal(header.pageSize, expected[name].pageSize, name);
    assert.equal(databasePageCount(header, file.length), expected[name].pageCount, name);
    assert.equal(file.length, header.pageCount * header.pageSize, name);
    assert.equal(header.writeVersion, 1);
    assert.equal(header.reservedBytes, name === 'reserved-32.db' ? 32 : 0);
    assert.ok(header.libraryVersion >= 3_036_000);
  }
  assert.equal(decodeDatabaseHeader(fixture('spills.db')).writeVersion, 2);
});

test('the size in pages comes from the file when the header cannot be trusted, a part of a page counted as one', () => {
  const header = decodeDatabaseHeader(fixture('page-512.db'));
  assert.equal(databasePageCount(header, 1_000_000), 4);
  const stale = { ...header, versionValidFor: header.changeCounter + 1 };
  assert.equal(databasePageCount(stale, 5 * 512), 5);
  assert.equal(databasePageCount(stale, 5 * 512 + 1), 6);
  assert.equal(databasePageCount({ ...header, pageCount: 0 }, 3 * 512), 3);
});

test('the lock page is the one that holds byte 2^30', () => {
  for (let pageSize = 512; pageSize <= 65536; pageSize *= 2) {
    assert.ok(isPageSize(pageSize));
    const page = lockPage(pageSize);
    assert.ok((page - 1) * pageSize <= 2 ** 30 && page * pageSize > 2 ** 30);
  }
  for (const size of [0, 1, 256, 511, 513, 1000, 65535, 65537, 131072, -512, Number.NaN]) {
    assert.equal(isPageSize(size), false, String(size));
  }
});

test('what SQLite refuses to open is refused, with the place and what was found', () => {
  const sound = fixture('page-512.db');
  const refused: [at: number, bytes: number[], message: RegExp][] = [
    [0, [0x73], /SQLite format 3/],
    [16, [3, 0], /page size .* found 768/],
    [16, [1, 0], /page size .* found 256/],
    [19, [3], /read version 1 or 2, found 3/],
    [20, [33], /480 usable bytes a page or more, found 479/],
    [21, [65], /payload fractions 64, 32, 32, found 65, 32, 32/],
  ];
  for (const [at, bytes, message] of refused) {
    const damaged = sound.slice();
    damaged.set(bytes, at);
    assert.throws(
      () => decodeDatabaseHeader(damaged),
      (error) => error instanceof FormatError && message.test(error.message),
      `${bytes} at ${at}`,
    );
  }
  assert.throws(() => decodeDatabaseHeader(new Uint8Array(0)), /expected 100 bytes, found 0/);
  assert.throws(() => decodeDatabaseHeader(sound.subarray(0, 99)), /expected 100 bytes, found 99/);
});

test('random bytes end in a header or a FormatError', (t) => {
  const random = randomSource(t);
  for (let round = 0; round < 2000; round++) {
    const bytes = fixtureHead.slice(0, random.below(140));
    for (let i = random.below(6); i > 0; i--) bytes[random.below(bytes.length + 1)] = random.below(256);
    try {
      assert.ok(isPageSize(decodeDatabaseHeader(bytes).pageSize));
    } catch (error) {
      assert.ok(error instanceof FormatError, String(error));
    }
  }
});

const fixtureHead = fixture('page-4096.db').slice(0, 140);
