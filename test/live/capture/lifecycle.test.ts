/** Applications that come and go, die, lock the database for themselves, and change its journal mode. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { CaptureStage, LONG } from '../../support/capture-stage.js';
import { gapsIn } from '../../support/replication.js';

const WORK = { cacheSize: 50, rows: [100, 2000], rollbackShare: 0.05 } as const;

test('an application that closes and reopens the database again and again', async (t) => {
  const stage = await CaptureStage.open(t);
  if (!stage) return;
  const writer = await stage.writer({ ...WORK, reopenEverySeconds: LONG ? 1 : 0.3, rate: 2000 });
  const replication = await stage.replicate();
  await replication.firstPut();
  await sleep(LONG ? 20_000 : 3000);
  const report = await writer.stop();
  await replication.stop();
  const proof = await stage.prove();
  t.diagnostic(
    `${report.reopens} reopens, ${report.commits} commits, ${gapsIn(replication).length} gaps, ` +
      `${proof.proven} of ${proof.txids} TXIDs proven`,
  );
  assert.ok(report.reopens > 5);
  assert.equal(report.busy, 0);
});

for (const journalMode of ['wal', 'delete', 'truncate', 'persist'] as const) {
  test(`an application killed in the middle of transactions in ${journalMode} mode, and started again`, {}, async (t) => {
    const stage = await CaptureStage.open(t);
    if (!stage) return;
    let writer = await stage.writer({ ...WORK, journalMode });
    const replication = await stage.replicate();
    await replication.firstPut();
    const rounds = LONG ? 40 : 5;
    for (let round = 0; round < rounds; round++) {
      await sleep(50 + 200 * Math.random());
      if (round % 2 === 0) {
        await writer.pause();
        await writer.transaction({ rows: 300, kind: 'update', end: 'hold' });
      }
      await writer.kill();
      if (round % 3 === 0) await sleep(100);
      writer = await stage.writer({ ...WORK, journalMode, seed: round + 2 });
    }
    await sleep(200);
    await writer.stop();
    await replication.stop();
    const proof = await stage.prove();
    t.diagnostic(
      `${rounds} kills, ${gapsIn(replication).length} gaps, ${proof.proven} of ${proof.txids} TXIDs proven`,
    );
  });

  test(`a writer in exclusive locking mode and ${journalMode} mode`, async (t) => {
    const stage = await CaptureStage.open(t);
    if (!stage) return;
    // In WAL mode its index stays in memory: there is no -shm to read.
    const writer = await stage.writer({ ...WORK, journalMode, lockingMode: 'exclusive' });
    const replication = await stage.replicate();
    await replication.firstPut();
    await sleep(LONG ? 10_000 : 1000);
    await writer.stop();
    await replication.stop();
    const proof = await stage.prove();
    t.diagnostic(`${gapsIn(replication).length} gaps, ${proof.proven} of ${proof.txids} TXIDs proven`);
  });
}

test('a database that changes its journal mode while it is followed', async (t) => {
  const stage = await CaptureStage.open(t);
  if (!stage) return;
  const writer = await stage.writer({
    ...WORK,
    journalModes: ['wal', 'delete', 'wal', 'truncate', 'wal', 'persist'],
    journalModeEverySeconds: LONG ? 1 : 0.3,
    rate: 1000,
  });
  const replication = await stage.replicate();
  await replication.firstPut();
  await sleep(LONG ? 20_000 : 3000);
  const report = await writer.stop();
  await replication.stop();
  const proof = await stage.prove();
  t.diagnostic(
    `${report.journalModes} switches, ${report.commits} commits, ${gapsIn(replication).length} gaps, ` +
      `${proof.proven} of ${proof.txids} TXIDs proven`,
  );
  assert.ok(report.journalModes > 5);
});
