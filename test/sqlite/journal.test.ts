import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  decodeJournalHeader,
  decodeSuperJournalName,
  JOURNAL_HEADER_SIZE,
  JournalScanner,
  SUPER_JOURNAL_TAIL_SIZE,
} from '../../lib/sqlite/journal.js';
import { randomSource } from '../support/random.js';
import { expected, fixture, sha256, undoJournal } from './files.js';

test('rolling a hot journal back makes what SQLite made, at several sector and page sizes', () => {
  for (const name of [
    'hot.db',
    'hot-nosync.db',
    'hot-sectors.db',
    'super-there.db',
    'to-wal.db',
    'vacuum.db',
  ]) {
    const undone = undoJournal(fixture(name), fixture(`${name}-journal`));
    assert.equal(sha256(undone.database), expected[name].sha256, name);
    assert.ok(undone.records > 0, name);
  }
});

test('headers say what the writer was doing', () => {
  const hot = decodeJournalHeader(fixture('hot.db-journal'));
  assert.ok(hot);
  assert.deepEqual(
    [hot.sectorSize, hot.pageSize, hot.initialPageCount],
    [512, 1024, expected['hot.db'].pageCount],
  );
  assert.ok(hot.recordCount > 0);
  assert.equal(decodeJournalHeader(fixture('hot-nosync.db-journal'))?.recordCount, -1);
  assert.equal(decodeJournalHeader(fixture('hot-sectors.db-journal'))?.sectorSize, 4096);
});

test('a spilling transaction makes several segments', () => {
  assert.ok(undoJournal(fixture('hot.db'), fixture('hot.db-journal')).segments > 1);
  assert.ok(undoJournal(fixture('hot-sectors.db'), fixture('hot-sectors.db-journal')).segments > 1);
});

test('the page size of a journal is its own: a VACUUM that was cut off left another one in the database', () => {
  assert.equal(decodeJournalHeader(fixture('vacuum.db-journal'))?.pageSize, 1024);
  assert.equal(fixture('vacuum.db')[16], 2);
});

test('a journal that was committed or never synced has nothing to undo', () => {
  for (const name of ['persist.db-journal', 'truncate.db-journal', 'unsynced.db-journal']) {
    const journal = fixture(name);
    assert.equal(decodeJournalHeader(journal), undefined, name);
    const scanner = new JournalScanner(journal.length, 1024);
    assert.equal(scanner.next(journal, 0), 'end');
    assert.equal(scanner.header, undefined);
    assert.equal(scanner.end, 'no header');
  }
  assert.equal(sha256(fixture('unsynced.db')), expected['unsynced.db'].sha256);
});

test('the super-journal is named at the end, and only there', () => {
  for (const name of ['super-there.db', 'super-gone.db']) {
    const journal = fixture(`${name}-journal`);
    const tail = journal.subarray(Math.max(0, journal.length - SUPER_JOURNAL_TAIL_SIZE));
    assert.equal(decodeSuperJournalName(tail), expected[name].superJournal);
    assert.equal(decodeSuperJournalName(journal), expected[name].superJournal);
    for (let back = 1; back <= 17; back++) {
      const damaged = tail.slice();
      damaged[damaged.length - back] ^= 1;
      assert.equal(decodeSuperJournalName(damaged), undefined, `byte ${back} from the end`);
    }
    assert.equal(decodeSuperJournalName(tail.subarray(0, tail.length - 1)), undefined);
    assert.equal(decodeSuperJournalName(tail.subarray(tail.length - 40)), undefined);
  }
  assert.equal(decodeSuperJournalName(fixture('hot.db-journal')), undefined);
  assert.equal(decodeSuperJournalName(new Uint8Array(0)), undefined);
});

test('names beyond ASCII are read whether the writer added them up signed or unsigned', () => {
  const name = new TextEncoder().encode('/srv/Bücher/größe.db-mj0123456789');
  const sum = name.reduce((total, byte) => total + byte, 0);
  const high = name.filter((byte) => byte > 127).length;
  const tail = new Uint8Array(name.length + 16);
  tail.set(name);
  tail.set([0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7], name.length + 8);
  const view = new DataView(tail.buffer);
  view.setUint32(name.length, name.length);
  for (const stored of [sum, sum - 256 * high]) {
    view.setUint32(name.length + 4, stored);
    assert.equal(decodeSuperJournalName(tail), '/srv/Bücher/größe.db-mj0123456789');
  }
  view.setUint32(name.length + 4, sum + 1);
  assert.equal(decodeSuperJournalName(tail), undefined);
});

test('a record with a changed byte that the checksum covers ends the scan where it stands', () => {
  const journal = fixture('super-there.db-journal');
  const sound = undoJournal(fixture('super-there.db'), journal);
  const header = decodeJournalHeader(journal)!;
  assert.ok(header.recordCount >= 2);
  const second = header.sectorSize + header.pageSize + 8;
  for (const at of [4 + header.pageSize - 200, 4 + header.pageSize - 1000, 4 + header.pageSize]) {
    const damaged = journal.slice();
    damaged[second + at] ^= 1;
    const undone = undoJournal(fixture('super-there.db'), damaged);
    assert.deepEqual([undone.records, undone.segments, undone.end], [1, 1, 'checksum']);
    assert.ok(sound.records > 1);
  }
});

test('a record of a page that was not there before is passed over, unchecked', () => {
  const journal = fixture('super-there.db-journal');
  const header = decodeJournalHeader(journal)!;
  new DataView(journal.buffer).setUint32(header.sectorSize, header.initialPageCount + 1);
  journal[header.sectorSize + 4 + header.pageSize] ^= 1;
  const scanner = new JournalScanner(journal.length, 1024);
  assert.equal(scanner.next(journal, scanner.position), 'header');
  assert.equal(scanner.next(journal, scanner.position), 'beyond');
  assert.equal(scanner.next(journal, scanner.position), 'record');
});

test('a journal cut anywhere is undone up to the cut, and nothing is read beyond it', () => {
  const journal = fixture('hot.db-journal');
  const whole = undoJournal(fixture('hot.db'), journal);
  for (let length = 0; length < journal.length; length += 37) {
    const undone = undoJournal(fixture('hot.db'), journal.slice(0, length));
    assert.ok(undone.records <= whole.records);
    assert.match(undone.end ?? '', /^(no header|truncated)$/);
  }
});

test('sizes that SQLite does not believe make a header invalid; an old one without page size takes the database’s', () => {
  const journal = fixture('hot.db-journal');
  const view = new DataView(journal.buffer);
  for (const [at, value] of [
    [20, 0],
    [20, 16],
    [20, 513],
    [20, 131072],
    [24, 256],
    [24, 1000],
    [24, 131072],
    [24, 0xffffffff],
  ]) {
    const before = view.getUint32(at);
    view.setUint32(at, value);
    assert.equal(decodeJournalHeader(journal), undefined, `${value} at ${at}`);
    view.setUint32(at, before);
  }
  assert.ok(decodeJournalHeader(journal));
  assert.equal(decodeJournalHeader(journal.subarray(0, JOURNAL_HEADER_SIZE - 1)), undefined);
  view.setUint32(24, 0);
  assert.equal(decodeJournalHeader(journal)?.pageSize, 0);
  assert.equal(sha256(undoJournal(fixture('hot.db'), journal).database), expected['hot.db'].sha256);
});

test('whatever the bytes, a scan ends, asks for no byte outside of the file and throws nothing', (t) => {
  const random = randomSource(t);
  const journals = ['hot.db', 'hot-nosync.db', 'hot-sectors.db', 'super-there.db'].map((n) =>
    fixture(`${n}-journal`),
  );
  for (let round = 0; round < 600; round++) {
    const original = journals[random.below(journals.length)];
    const journal = original.slice(
      0,
      random.below(2) === 0 ? original.length : random.below(original.length),
    );
    for (let i = random.below(5); i > 0 && journal.length > 0; i--)
      journal[random.below(Math.min(64, journal.length))] = random.below(256);
    if (random.below(3) === 0)
      journal.set([0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7].slice(0, journal.length));
    const scanner = new JournalScanner(journal.length, 1024);
    let pieces = 0;
    while (scanner.need > 0) {
      assert.ok(scanner.position + scanner.need <= journal.length);
      scanner.next(journal, scanner.position);
      assert.ok(pieces++ <= journal.length / 32);
    }
    decodeSuperJournalName(journal);
  }
});
