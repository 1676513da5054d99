/** What must hold of a replica at every instant, whatever merged and removed files in it, and was stopped doing so. */

import assert from 'node:assert/strict';
import { planRestore, type RestoreWish } from '../../lib/jobs/plan.js';
import type { LevelSettings } from '../../lib/jobs/tidy/tidy.js';
import { decodeLtx } from '../../lib/ltx/decoder.js';
import { ltxPath, SNAPSHOT_LEVEL } from '../../lib/replica/names.js';
import type { LtxFileInfo, Replica } from '../../lib/replica/replica.js';
import { databaseBytes, type History, timeOf } from './ltx-history.js';

/** Levels 1 to 8 have no holes, and what is merged lies wholly inside files of the next level. */
export function assertLevelRules(files: readonly LtxFileInfo[]): void {
  for (let level = 1; level < SNAPSHOT_LEVEL; level++) {
    const own = files.filter((file) => file.level === level).sort((a, b) => (a.minTxid < b.minTxid ? -1 : 1));
    for (let i = 1; i < own.length; i++) {
      assert.equal(
        own[i].minTxid,
        own[i - 1].maxTxid + 1n,
        `${ltxPath(own[i])} does not follow the one before`,
      );
    }
    if (own.length === 0) continue;
    for (const below of files.filter((file) => file.level === level - 1)) {
      if (below.maxTxid < own[0].minTxid || below.minTxid > own[own.length - 1].maxTxid) continue;
      const isInside = own.some(
        ({ minTxid, maxTxid }) => minTxid <= below.minTxid && below.maxTxid <= maxTxid,
      );
      // A bridge over a hole may begin inside what came after the hole.
      assert.ok(isInside, `${ltxPath(below)} lies across files of level ${level}`);
    }
  }
}

/** The bytes of the database that a wish leads to. */
export async function restoredBytes(
  replica: Replica,
  files: readonly LtxFileInfo[],
  wish: RestoreWish,
): Promise<{ txid: bigint; bytes: Buffer }> {
  const plan = planRestore(files, wish);
  let bytes = Buffer.alloc(0);
  for (const file of plan.files) {
    let pageSize = 0;
    await decodeLtx(ltxPath(file), replica.read(file), {
      header: (header) => {
        assert.deepEqual([header.minTxid, header.maxTxid], [file.minTxid, file.maxTxid]);
        assert.equal(header.timestampMs, file.timestampMs);
        pageSize = header.pageSize;
        const resized = Buffer.alloc(header.commit * pageSize);
        bytes.copy(resized);
        bytes = resized;
      },
      page: (pgno, page) => bytes.set(page, (pgno - 1) * pageSize),
    });
  }
  return { txid: plan.txid, bytes };
}

/**
 * Every promised moment up to `newest`, the state captured last, at `nowMs`: the planner gives a state of no later time, and
 * not earlier than promised. `sample` says of which of them the bytes are compared, too.
 */
export async function assertPromises(
  replica: Replica,
  history: History,
  newest: number,
  settings: LevelSettings,
  nowMs: number,
  sample: (moment: number) => boolean,
): Promise<void> {
  const files = await replica.list();
  assertLevelRules(files);
  const last = await restoredBytes(replica, files, { kind: 'newest' });
  assert.equal(last.txid, BigInt(newest));
  assert.ok(last.bytes.equals(databaseBytes(history, newest)), 'the newest state differs');
  const [interval] = settings.levelIntervalsMs;
  const from = Math.max(nowMs - settings.snapshotRetentionMs, timeOf(1));
  for (let moment = Math.ceil(from / 500) * 500; moment <= nowMs; moment += 500) {
    const isRecent = moment > nowMs - settings.level0RetentionMs;
    const latest = stateAt(moment, newest);
    const earliest = isRecent ? latest : stateAt(Math.floor(moment / interval) * interval - 1, newest);
    const wish = { kind: 'timestamp', timestampMs: moment } as const;
    const { txid } = planRestore(files, wish);
    assert.ok(
      txid <= BigInt(latest) && txid >= BigInt(Math.max(1, earliest)),
      `${moment - timeOf(0)} ms: expected TXID ${earliest} to ${latest}, found ${txid}`,
    );
    if (!sample(moment)) continue;
    const { bytes } = await restoredBytes(replica, files, wish);
    assert.ok(bytes.equals(databaseBytes(history, Number(txid))), `the state at TXID ${txid} differs`);
  }
}

/** The last TXID captured at or before a moment. */
function stateAt(moment: number, newest: number): number {
  return Math.min(newest, Math.max(0, Math.floor((moment - timeOf(0)) / 1000)));
}
