/** Files from clocks that were wrong, and what their times may not do to merging and removing. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { planRestore, reachableStates } from '../../../lib/jobs/plan.js';
import { holdLease } from '../../../lib/jobs/tidy/lease.js';
import { planRetention, retain } from '../../../lib/jobs/tidy/retain.js';
import { type LevelSettings, tidy } from '../../../lib/jobs/tidy/tidy.js';
import { openFileReplica } from '../../../lib/replica/file.js';
import type { LtxFileInfo } from '../../../lib/replica/replica.js';
import { inEveryHome, replicaWith } from '../../support/homes.js';
import { assertLevelRules, restoredBytes } from '../../support/level-rules.js';
import { databaseBytes, ltxBytes, makeHistory, timeOf } from '../../support/ltx-history.js';
import { mergedListing } from '../../support/merged-listing.js';
import { randomSource } from '../../support/random.js';
import { scratchFolder } from '../../support/scratch.js';

const SETTINGS: LevelSettings = {
  levelIntervalsMs: [5000, 20_000],
  snapshotIntervalMs: 50_000,
  snapshotRetentionMs: 80_000,
  level0RetentionMs: 12_000,
};
const YEAR_MS = 365 * 86_400_000;

/** TXIDs that can be restored when retention has been. */
function statesKept(files: readonly LtxFileInfo[], settings: LevelSettings, nowMs: number): number[] {
  const { remove, refused } = planRetention(files, settings, nowMs);
  assert.equal(refused, undefined);
  const gone = new Set(remove);
  return reachableStates(files.filter((one) => !gone.has(one))).map(({ txid }) => Number(txid));
}

test('one file of a clock that ran ahead keeps no others from being removed', () => {
  const right = mergedListing(98);
  const expected = statesKept(right, SETTINGS, timeOf(98));
  assert.ok(expected.length < 60, `${expected.length} states`);
  for (const wrong of [8, 33, 35]) {
    const files = right.map((one) =>
      one.level === 0 && one.maxTxid === BigInt(wrong)
        ? { ...one, timestampMs: timeOf(wrong) + YEAR_MS }
        : one,
    );
    assert.deepEqual(statesKept(files, SETTINGS, timeOf(98)), expected, `TXID ${wrong}`);
  }
});

test('a snapshot of a clock that was set back for a while does not make what came before it look old', () => {
  const files = mergedListing(98);
  const expected = statesKept(files, SETTINGS, timeOf(98));
  const lying = files.map((one) =>
    one.level === 9 && one.maxTxid === 80n ? { ...one, timestampMs: 0 } : one,
  );
  assert.deepEqual(statesKept(lying, SETTINGS, timeOf(98)), expected);
});

test('each single TXID of the time that level 0 is kept for stays, however soon snapshots go', () => {
  const settings = { ...SETTINGS, snapshotRetentionMs: 3000, level0RetentionMs: 50_000 };
  const kept = statesKept(mergedListing(98), settings, timeOf(98));
  for (let txid = 48; txid <= 98; txid++) assert.ok(kept.includes(txid), `TXID ${txid}: ${kept}`);
  assert.ok(!kept.includes(19), `${kept}`);
});

inEveryHome(
  'while every new file is from the future, snapshots are made and files removed by the home’s own clock',
  async (open, t) => {
    const random = randomSource(t);
    const history = makeHistory(60, 512, 12, (below) => random.below(below));
    const replica = await open();
    // From TXID 30 on the writer's clock ran a year ahead; time does not go back in a replica when it was put right.
    const ahead = Date.now() + YEAR_MS;
    const put = (txid: number) => {
      const timestampMs = txid < 30 ? timeOf(txid) : ahead;
      const target = { level: 0, minTxid: BigInt(txid), maxTxid: BigInt(txid), timestampMs };
      return replica.write(target, () => [ltxBytes(history, txid, txid, timestampMs)]);
    };
    const round = async (nowMs: number) => {
      const result = await tidy(replica, { settings: SETTINGS, nowMs });
      assert.equal(result.kind, 'done');
      const files = await replica.list();
      assertLevelRules(files);
      return files;
    };
    const ends = (files: readonly LtxFileInfo[], level: number) =>
      files.filter((one) => one.level === level).map(({ maxTxid }) => Number(maxTxid));

    for (let txid = 1; txid <= 40; txid++) await put(txid);
    const begun = Date.now();
    assert.deepEqual(ends(await round(begun), 9), [40]);
    for (let txid = 41; txid <= 60; txid++) await put(txid);
    // Not before their time.
    const early = await round(Date.now());
    assert.deepEqual(ends(early, 9), [40]);
    for (let txid = 30; txid <= 60; txid++) assert.ok(ends(early, 0).includes(txid), `TXID ${txid} is gone`);
    const later = await round(Date.now() + 60_000);
    assert.deepEqual(ends(later, 9), [40, 60]);
    // Level 1 began after the first, which holds the whole database.
    assert.deepEqual(ends(later, 0), [1, 60]);
    for (const { txid } of reachableStates(later)) {
      const { bytes } = await restoredBytes(replica, later, { kind: 'txid', txid });
      assert.ok(bytes.equals(databaseBytes(history, Number(txid))), `TXID ${txid}`);
    }
    const last = await round(Date.now() + 200_000);
    assert.deepEqual(ends(last, 9), [60]);
    assert.equal(planRestore(last, { kind: 'newest' }).txid, 60n);
  },
);

test('of two clocks that differ the one counts that removes less', async (t) => {
  const random = randomSource(t);
  const history = makeHistory(40, 512, 12, (below) => random.below(below));
  const replica = await openFileReplica(await scratchFolder(t));
  for (let txid = 1; txid <= 40; txid++) {
    const target = {
      level: 0,
      minTxid: BigInt(txid),
      maxTxid: BigInt(txid),
      timestampMs: Date.now() + 1000 * txid,
    };
    await replica.write(target, () => [ltxBytes(history, txid, txid)]);
  }
  await tidy(replica, { settings: SETTINGS, nowMs: Date.now() + 60_000, retain: false });
  const before = await replica.list();
  for (const clock of [0, Date.now(), Date.now() + YEAR_MS]) {
    const one = replicaWith(replica, { clock: async () => clock });
    const done = await holdLease(replica, (lease) => retain(one, lease, SETTINGS));
    assert.deepEqual(done, { kind: 'done', value: { removed: [] } });
  }
  assert.deepEqual(await replica.list(), before);
  t.mock.method(Date, 'now', () => before[0].timestampMs + 2 * YEAR_MS);
  const far = replicaWith(replica, { clock: async () => before[0].timestampMs + YEAR_MS });
  const done = await holdLease(replica, (lease) => retain(far, lease, SETTINGS));
  assert.ok(done.kind === 'done' && done.value.removed.length > 30);
});
