import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { backup } from '../../lib/jobs/backup.js';
import { restore } from '../../lib/jobs/restore.js';
import { openReplica } from '../../lib/replica/open.js';
import { CaptureStage } from '../support/capture-stage.js';
import { OracleChecker } from '../support/oracle/check.js';

const HOUR_MS = 3_600_000;

test('after a clock that ran ahead moments lead to no later state than they should, and a warning says so once', async (t) => {
  const stage = await CaptureStage.open(t);
  if (stage === undefined) return;
  const writer = await stage.writer({ paused: true, sizes: [[1, 5, 50]] });
  const replica = await openReplica(stage.replica);
  t.after(() => replica.close());
  const { database } = stage;
  await writer.command('step 3');
  await backup({ database, replica });
  const before = stage.ledger().newest!.seq;
  const now = Date.now();
  await writer.command('step 3');
  t.mock.method(Date, 'now', () => now + HOUR_MS);
  await backup({ database, replica });
  t.mock.restoreAll();

  const replication = await stage.replicate();
  await replication.ready();
  for (let i = 0; i < 3; i++) {
    const put = replication.nextPut();
    await writer.command('step 1');
    await put;
  }
  await replication.stop();
  const warnings = replication.events.filter(({ level }) => level === 'warn');
  assert.deepEqual(
    warnings.map(({ type }) => type),
    ['clock'],
  );
  assert.match(
    warnings[0].message,
    new RegExp(`is of ${new Date(now + HOUR_MS).toISOString().slice(0, 16)}`),
  );

  const files = await replica.list(0);
  assert.deepEqual(
    files.map(({ timestampMs }) => timestampMs > now + HOUR_MS / 2),
    [false, true, true, true, true],
  );
  const checker = new OracleChecker();
  t.after(() => checker.close());
  const output = join(stage.folder, 'restored.db');
  for (const [timestampMs, seq] of [
    [Date.now(), before],
    [now + 2 * HOUR_MS, stage.ledger().newest!.seq],
  ]) {
    await restore({ replica, output, timestampMs, force: true });
    assert.equal((await checker.prove(output)).seq, seq);
  }
});
