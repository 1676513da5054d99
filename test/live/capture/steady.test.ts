/** A source that only commits and checkpoints, in all the ways SQLite has. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { CaptureStage, LONG } from '../../support/capture-stage.js';
import { gapsIn } from '../../support/replication.js';

for (const [autoVacuum, name, seed] of [
  [0, 'no', 11],
  [1, 'full', 12],
  [2, 'incremental', 13],
] as const) {
  const title = `all kinds of checkpoints, spills with rollbacks and savepoints, growth and shrinking, ${name} auto_vacuum`;
  test(title, async (t) => {
    const stage = await CaptureStage.open(t);
    if (!stage) return;
    const writer = await stage.writer({
      seed,
      autoVacuum,
      cacheSize: 50,
      rows: [100, 3000],
      sizes: [
        [60, 1, 1],
        [30, 2, 20],
        [10, 200, 1500],
      ],
      rollbackShare: 0.1,
      savepointShare: 0.1,
      schemaShare: 0.02,
      checkpointEvery: 15,
      vacuumEvery: 150,
      incrementalVacuumEvery: 30,
      autocheckpoint: seed === 12 ? 0 : 1000,
    });
    const replication = await stage.replicate();
    await replication.firstPut();
    await sleep(LONG ? 20_000 : 2500);
    const report = await writer.stop();
    await replication.stop();
    const proof = await stage.prove();
    t.diagnostic(
      `${report.commits} commits, ${report.rollbacks} rollbacks, ` +
        `${report.checkpoints} checkpoints, ${report.vacuums} VACUUMs, ${gapsIn(replication).length} gaps, ` +
        `${proof.proven} of ${proof.txids} TXIDs proven`,
    );
    assert.ok(report.rollbacks > 0 && report.checkpoints > 0);
    assert.equal(report.busy, 0);
  });
}
