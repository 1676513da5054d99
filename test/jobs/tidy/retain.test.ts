import assert from 'node:assert/strict';
import { test } from 'node:test';
import { JetliteError } from '../../../lib/errors.js';
import { planRestore } from '../../../lib/jobs/plan.js';
import { planRetention, type RetentionSettings } from '../../../lib/jobs/tidy/retain.js';
import type { LtxFileInfo } from '../../../lib/replica/replica.js';
import { timeOf } from '../../support/ltx-history.js';
import { MERGED, mergedListing, SNAPSHOT_EVERY } from '../../support/merged-listing.js';

const SETTINGS: RetentionSettings = { snapshotRetentionMs: 50_000, level0RetentionMs: 12_000 };
const LAST = 98;

function names(files: readonly LtxFileInfo[]): string[] {
  return files.map(({ level, minTxid, maxTxid }) => `${level}:${minTxid}-${maxTxid}`);
}

/** What is left when the first `count` of the files that are due have been removed. */
function rest(files: readonly LtxFileInfo[], remove: readonly LtxFileInfo[], count: number): LtxFileInfo[] {
  const gone = new Set(remove.slice(0, count));
  return files.filter((one) => !gone.has(one));
}

/** The TXID that a moment leads to; undefined if it is refused. */
function stateAt(files: readonly LtxFileInfo[], timestampMs: number): number | undefined {
  try {
    return Number(planRestore(files, { kind: 'timestamp', timestampMs }).txid);
  } catch (error) {
    if (error instanceof JetliteError && error.code === 'NOT_FOUND') return undefined;
    throw error;
  }
}

test('what is older than the newest old snapshot goes, and level 0 where level 1 is old', () => {
  const files = mergedListing(LAST);
  const { remove } = planRetention(files, SETTINGS, timeOf(LAST));
  const anchor = 40;
  const expected = files.filter(({ level, maxTxid }) => {
    if (level === 0) return Number(maxTxid) <= 85;
    return level === 9 ? Number(maxTxid) < anchor : Number(maxTxid) <= anchor;
  });
  assert.deepEqual(names(remove).sort(), names(expected).sort());
});

test('however long nothing is captured, the newest file of each level stays, and the way to the newest state', () => {
  for (const last of [LAST, 100]) {
    const files = mergedListing(last);
    const { remove } = planRetention(files, SETTINGS, timeOf(last) + 365 * 86_400_000);
    const left = rest(files, remove, remove.length);
    const ends = (level: number) =>
      left.filter((one) => one.level === level).map(({ maxTxid }) => Number(maxTxid));
    // Of level 0 also what is not merged yet.
    assert.deepEqual(ends(0), last === 100 ? [100] : [96, 97, 98]);
    assert.deepEqual(ends(1), last === 100 ? [100] : [85, 90, 95]);
    assert.deepEqual(ends(9), [last - (last % SNAPSHOT_EVERY)]);
    assert.equal(planRestore(left, { kind: 'newest' }).txid, BigInt(last));
  }
});

test('stopped after any removal, a moment leads to what it did, one interval back, or is refused', () => {
  const files = mergedListing(LAST);
  const { remove } = planRetention(files, SETTINGS, timeOf(LAST));
  assert.ok(remove.length > 80);
  for (let count = 1; count <= remove.length; count++) {
    const left = rest(files, remove, count);
    for (let moment = timeOf(1); moment <= timeOf(LAST); moment += 1000) {
      const found = stateAt(left, moment);
      if (found === undefined) {
        assert.ok(moment < timeOf(LAST) - SETTINGS.snapshotRetentionMs, `${moment} is refused`);
        continue;
      }
      const latest = stateAt(files, moment)!;
      assert.ok(
        found <= latest && found > latest - MERGED,
        `after ${count} removals TXID ${found}, not ${latest}`,
      );
    }
  }
});
