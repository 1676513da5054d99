/** The oracle must be able to say no: what it rejects here is what a wrong capture would produce. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { copyFile, open, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { peer, peerPath } from '../peers.js';
import { scratchFolder } from '../scratch.js';
import { firstDifference, OracleChecker, proveState } from './check.js';
import { Ledger } from './ledger.js';
import { OracleWriter, type WriterOptions } from './writer.js';

const EVERYTHING: WriterOptions = {
  cacheSize: 50,
  rows: [50, 600],
  sizes: [
    [70, 1, 1],
    [25, 2, 30],
    [5, 100, 300],
  ],
  rollbackShare: 0.1,
  savepointShare: 0.1,
  schemaShare: 0.03,
  checkpointEvery: 40,
  vacuumEvery: 150,
  incrementalVacuumEvery: 40,
  autoVacuum: 2,
};

test('every page size, reserved bytes, rollbacks, vacuums and schema changes leave states that are proven', async (t) => {
  if (!peer(t, 'python3')) return;
  const folder = await scratchFolder(t);
  const checker = new OracleChecker();
  t.after(() => checker.close());
  for (let pageSize = 512; pageSize <= 65536; pageSize *= 2) {
    const database = join(folder, `${pageSize}.db`);
    const reservedBytes = pageSize === 512 ? 0 : pageSize === 1024 ? 255 : 8;
    const ledger = `${database}.ledger`;
    const options = { ...EVERYTHING, seed: pageSize, pageSize, reservedBytes, commits: 250, ledger };
    const report = await (await OracleWriter.start(database, options)).report();
    const { pages, ...state } = await checker.prove(database);
    assert.deepEqual(state, { seq: report.seq, digest: report.digest });
    assert.deepEqual(new Ledger(ledger).newest, state);
    assert.ok(report.rollbacks > 0 && report.savepoints > 0 && report.checkpoints > 0);
    assert.equal(report.busy, 0);
    const bytes = await readFile(database);
    assert.equal(bytes.readUInt16BE(16), pageSize === 65536 ? 1 : pageSize);
    assert.equal(bytes[20], reservedBytes);
    assert.equal(bytes.length, pages * pageSize);
  }
});

test('a writer killed at random, in WAL and in rollback mode, leaves an acknowledged state or the one after it', async (t) => {
  if (!peer(t, 'python3')) return;
  const folder = await scratchFolder(t);
  const checker = new OracleChecker();
  t.after(() => checker.close());
  for (const journalMode of ['wal', 'delete', 'persist'] as const) {
    const database = join(folder, `${journalMode}.db`);
    const ledger = `${database}.ledger`;
    for (let round = 0; round < 5; round++) {
      const writer = await OracleWriter.start(database, { ...EVERYTHING, seed: round, journalMode, ledger });
      await sleep(40 + 160 * Math.random());
      await writer.kill();
      const acknowledged = new Ledger(ledger).newest!;
      const { seq, digest } = await checker.prove(database);
      if (seq === acknowledged.seq) assert.equal(digest, acknowledged.digest);
      else assert.equal(seq, acknowledged.seq + 1);
    }
    await (await OracleWriter.start(database, { ledger, commits: 10 })).report();
    const states = new Ledger(ledger);
    const { seq, digest } = await checker.prove(database);
    assert.equal(states.digestOf(seq), digest);
    for (let index = 1; index < states.length; index++) {
      assert.ok(states.at(index).seq >= states.at(index - 1).seq);
    }
  }
});

/** Two images of one database, before and after one transaction, and the pages in which they differ. */
async function beforeAndAfter(folder: string): Promise<{ before: Buffer; after: Buffer; changed: number[] }> {
  const database = join(folder, 'source.db');
  // Rows of one length: no page becomes free, so each changed page is one that matters.
  const writer = await OracleWriter.start(database, {
    paused: true,
    payload: [200, 200],
    largePayloadShare: 0,
    rows: [2000, 2000],
  });
  await writer.transaction({ rows: 800, kind: 'insert' });
  await writer.checkpoint('TRUNCATE');
  const before = await readFile(database);
  await writer.transaction({ rows: 12, kind: 'update' });
  await writer.checkpoint('TRUNCATE');
  const after = await readFile(database);
  await writer.stop();
  assert.equal(before.length, after.length);
  const changed: number[] = [];
  for (let offset = 0; offset < after.length; offset += 4096) {
    if (before.compare(after, offset, offset + 4096, offset, offset + 4096) !== 0) changed.push(offset);
  }
  assert.ok(changed.length > 6);
  return { before, after, changed };
}

test('a copy with only some of a transaction’s pages is rejected, whichever they are', async (t) => {
  if (!peer(t, 'python3')) return;
  const folder = await scratchFolder(t);
  const checker = new OracleChecker();
  t.after(() => checker.close());
  const { before, after, changed } = await beforeAndAfter(folder);
  const torn = join(folder, 'torn.db');
  for (const image of [before, after]) {
    await writeFile(torn, image);
    await checker.prove(torn);
  }
  const mixtures = changed.flatMap((one) => [[one], changed.filter((other) => other !== one)]);
  mixtures.push(changed.filter((_, index) => index % 2 === 0));
  for (const mixture of mixtures) {
    const bytes = Buffer.from(before);
    for (const offset of mixture) after.copy(bytes, offset, offset, offset + 4096);
    await writeFile(torn, bytes);
    await assert.rejects(
      checker.prove(torn),
      /is no committed state/,
      `pages at ${mixture} from the later state`,
    );
  }
});

test('a lost row, a changed byte of a row, an older size and a changed record of the state are rejected', async (t) => {
  if (!peer(t, 'python3')) return;
  const folder = await scratchFolder(t);
  const checker = new OracleChecker();
  t.after(() => checker.close());
  const { after } = await beforeAndAfter(folder);
  const database = join(folder, 'mutated.db');

  const run = async (sql: string): Promise<void> => {
    await writeFile(database, after);
    const code =
      'import sqlite3,sys; c=sqlite3.connect(sys.argv[1]); c.execute(sys.argv[2]); c.commit(); c.close()';
    assert.equal(spawnSync(peerPath('python3')!, ['-c', code, database, sql]).status, 0);
  };
  await run('UPDATE item SET number = number WHERE id = 7');
  await checker.prove(database);
  for (const [sql, reason] of [
    ['DELETE FROM item WHERE id = 7', /rows, commit/],
    ['UPDATE item SET payload = zeroblob(200) WHERE id = 7', /digest/],
    ['UPDATE account SET number = number + 1 WHERE id = 3', /balances/],
    ['UPDATE oracle SET seq = seq - 1', /newest row/],
    ['UPDATE oracle SET digest = digest + 1', /digest/],
    ['DELETE FROM oracle', /table oracle/],
    ['CREATE INDEX extra ON item(seq)', /digest/],
    ['DROP TABLE oracle', /cannot be read/],
  ] as const) {
    await run(sql);
    await assert.rejects(checker.prove(database), reason, sql);
  }

  await writeFile(database, after.subarray(0, after.length - 4096));
  await assert.rejects(checker.prove(database), /is no committed state/);
  await assert.rejects(checker.prove(join(folder, 'absent.db')), /no such file/);
});

test('a WAL beside a database counts, and proving it changes neither', async (t) => {
  if (!peer(t, 'python3')) return;
  const folder = await scratchFolder(t);
  const database = join(folder, 'source.db');
  const writer = await OracleWriter.start(database, { paused: true, autocheckpoint: 0 });
  await writer.command('step 50');
  await writer.checkpoint('TRUNCATE');
  const old = await writer.command('state');
  await writer.command('step 50');
  const present = await writer.command('state');
  const copy = join(folder, 'copy.db');
  await copyFile(database, copy);
  assert.equal((await proveState(copy)).seq, old.seq);
  await copyFile(`${database}-wal`, `${copy}-wal`);
  const { seq, digest } = await proveState(copy);
  assert.deepEqual({ seq, digest }, { seq: present.seq, digest: present.digest });
  assert.equal(await firstDifference(database, copy), undefined);
  assert.equal(await firstDifference(`${database}-wal`, `${copy}-wal`), undefined);
  await writer.stop();
});

test('held, rolled back and stepped transactions do as they are told', async (t) => {
  if (!peer(t, 'python3')) return;
  const folder = await scratchFolder(t);
  const database = join(folder, 'source.db');
  const writer = await OracleWriter.start(database, { paused: true, cacheSize: 10 });
  assert.equal((await writer.transaction({ rows: 1, kind: 'insert' })).seq, 2);
  assert.equal((await writer.transaction({ rows: 300, kind: 'insert', end: 'hold' })).seq, 2);
  assert.equal((await writer.command('commit')).seq, 3);
  assert.equal((await writer.transaction({ rows: 300, kind: 'delete', end: 'hold' })).seq, 3);
  assert.equal((await writer.command('rollback')).seq, 3);
  assert.equal((await writer.command('step 4')).seq, 7);
  assert.equal((await writer.command('journal_mode delete')).result, 'delete');
  await writer.command('close');
  assert.equal((await proveState(database)).seq, 7);
  await writer.command('open');
  const report = await writer.stop();
  assert.deepEqual([report.commits, report.rollbacks, report.reopens], [6, 1, 1]);
});

test('firstDifference names the page, and a length that differs', async (t) => {
  if (!peer(t, 'python3')) return;
  const folder = await scratchFolder(t);
  const [one, other] = [join(folder, 'one.db'), join(folder, 'other.db')];
  await (await OracleWriter.start(one, { commits: 50 })).report();
  await copyFile(one, other);
  assert.equal(await firstDifference(one, other), undefined);
  const file = await open(other, 'r+');
  await file.write(Buffer.from([1, 2, 3]), 0, 3, 4096 * 3 + 17);
  await file.close();
  assert.match((await firstDifference(one, other)) ?? '', /^page 4 differs/);
  await writeFile(other, (await readFile(one)).subarray(0, 8192));
  assert.match((await firstDifference(one, other)) ?? '', /^8192 bytes/);
});
