/** Replicas that the real Litestream merged, snapshotted and thinned out, read and gone on with by Jetlite. */

import assert from 'node:assert/strict';
import { readFile, rm, utimes } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { reachableStates } from '../../lib/jobs/plan.js';
import type { UpkeepSettings } from '../../lib/jobs/tidy/tidy.js';
import { verify } from '../../lib/jobs/verify.js';
import { mergeLtx } from '../../lib/ltx/merge.js';
import { ltxPath } from '../../lib/replica/names.js';
import type { LtxFileInfo } from '../../lib/replica/replica.js';
import { BothPrograms, type HomeName, until } from '../support/both-programs.js';
import { LONG } from '../support/capture-stage.js';
import { assertLevelRules } from '../support/level-rules.js';
import { OracleChecker } from '../support/oracle/check.js';

const SETTINGS = {
  levels: ['1s', '2s'],
  snapshotInterval: '3s',
  snapshotRetention: '4s',
  l0Retention: '2s',
  l0RetentionCheckInterval: '500ms',
} as const;
const OUR_SETTINGS: UpkeepSettings = {
  levelIntervalsMs: [1000, 2000],
  snapshotIntervalMs: 3000,
  snapshotRetentionMs: 4000,
  level0RetentionMs: 2000,
};
const HOMES: readonly HomeName[] = ['a folder', 'NATS'];
const STATES = LONG ? 200 : 8;

/** Both programs list the same files, and restore the same of what can be had, by TXID and by moment. */
async function proveSame(both: BothPrograms): Promise<readonly LtxFileInfo[]> {
  const files = await both.filesOfBoth();
  assertLevelRules(files);
  const checker = new OracleChecker();
  try {
    const ledger = both.stage.ledger();
    const states = reachableStates(files);
    const step = Math.max(1, Math.ceil(states.length / STATES));
    for (const [i, { txid, timestampMs }] of states.entries()) {
      if (i % step !== 0 && i !== states.length - 1) continue;
      const state = await checker.prove(await both.restoreByBoth({ txid }));
      assert.equal(state.digest, ledger.digestOf(state.seq), `TXID ${txid}`);
      // Litestream wants a moment after the state's own, and none after the newest.
      const next = states[i + 1];
      if (next === undefined || timestampMs + 1 >= next.timestampMs) continue;
      await both.restoreByBoth({ timestampMs: timestampMs + 1 });
    }
    const newest = await checker.prove(await both.restoreByBoth());
    assert.equal(newest.seq, ledger.newest?.seq, 'the newest commit');
    assert.deepEqual((await verify({ replica: both.replica })).findings, []);
  } finally {
    await checker.close();
  }
  return files;
}

for (const home of HOMES) {
  test(`after Litestream’s merges, snapshots and retention in ${home} both programs list and restore the same, and Jetlite goes on with them all`, async (t) => {
    const both = await BothPrograms.open(t, home, { paused: false, rate: 20 });
    if (both === undefined) return;
    const litestream = await both.startLitestream(SETTINGS);
    await until(async () => {
      const files = await both.replica.list();
      const has = (level: number) => files.some((file) => file.level === level);
      return has(1) && has(2) && files.filter(({ level }) => level === 9).length > 1 && files[0].minTxid > 1n;
    }, 'levels 1 and 2, two snapshots, and an end of the first files');
    await both.writer.pause();
    await until(
      async () =>
        both
          .kept()
          .then((kept) => BigInt(`0x${kept.at(-1)}`))
          .then(async (last) => (await both.newestTxid()) >= last),
      'the last upload',
    );
    await litestream.stop();
    const theirs = await proveSame(both);
    const levels = new Set(theirs.map(({ level }) => level));
    assert.deepEqual([...levels], [0, 1, 2, 9]);

    const jetlite = await both.stage.replicate({ replica: both.url, levels: OUR_SETTINGS });
    await jetlite.ready();
    await both.writer.resume();
    for (const level of [1, 2]) {
      await jetlite.waitFor((event) => event.type === 'merged' && event.file.level === level);
    }
    for (const type of ['snapshot', 'removed']) await jetlite.waitFor((event) => event.type === type);
    await both.writer.pause();
    await jetlite.stop();
    assert.deepEqual(
      jetlite.events.filter(({ level }) => level === 'warn'),
      [],
    );
    await both.reopen();
    await proveSame(both);
    const back = await both.startLitestream(SETTINGS);
    await both.commitThroughLitestream(2);
    await back.says('compaction complete');
    await back.stop();
    await proveSame(both);
  });
}

/** Both programs lead from the moment just after the file of `last` to the state of `txid`. */
async function proveMomentAfter(
  both: BothPrograms,
  level0: readonly LtxFileInfo[],
  last: bigint,
  txid: bigint,
): Promise<void> {
  const right = await readFile(await both.restoreByBoth({ txid }));
  const { timestampMs } = level0.find(({ maxTxid }) => maxTxid === last)!;
  const found = await readFile(await both.restoreByBoth({ timestampMs: timestampMs + 1 }));
  assert.ok(found.equals(right), `the moment after TXID ${last} does not lead to TXID ${txid}`);
}

test('moments among files of level 0 that outlived those before them in a merged file lead both programs to the state before that', async (t) => {
  const both = await BothPrograms.open(t);
  if (both === undefined) return;
  const litestream = await both.startLitestream();
  // A commit can become two TXIDs of the same moment.
  const spanOfThree = async () => {
    const files = await both.replica.list();
    const timeOf = (txid: bigint) =>
      files.find(({ level, maxTxid }) => level === 0 && maxTxid === txid)!.timestampMs;
    return files.find(
      ({ level, minTxid, maxTxid }) =>
        level === 1 && minTxid > 1n && maxTxid > minTxid + 1n && timeOf(maxTxid) > timeOf(maxTxid - 1n) + 1,
    );
  };
  for (let tries = 0; (await spanOfThree()) === undefined; tries++) {
    assert.ok(tries < 500, 'no file of level 1 holds three TXIDs');
    await both.commitThroughLitestream(1);
  }
  const { minTxid, maxTxid } = (await spanOfThree())!;
  await both.commitThroughLitestream(2);
  await litestream.stop();
  const level0 = await both.replica.list(0);
  // As level 0 is retired by age; and no snapshot stands in between.
  const isGone = ({ level, maxTxid: end }: LtxFileInfo) => level === 9 || (level === 0 && end < maxTxid - 1n);
  await both.replica.remove((await both.replica.list()).filter(isGone));
  await both.reopen();
  await proveMomentAfter(both, level0, maxTxid - 1n, minTxid - 1n);
  await proveMomentAfter(both, level0, maxTxid, maxTxid);
});

test('moments after a file whose time is later than that of its successors lead both programs to the state before it', async (t) => {
  const both = await BothPrograms.open(t);
  if (both === undefined) return;
  const litestream = await both.startLitestream({ levels: ['1h', '2h'] });
  await both.commitThroughLitestream(6);
  await litestream.stop();
  const level0 = await both.replica.list(0);
  const wrong = level0[level0.length - 4];
  await both.replica.remove((await both.replica.list()).filter(({ level }) => level > 0));
  const late = new Date(wrong.timestampMs + 7_200_000);
  await utimes(join(both.url, ltxPath(wrong)), late, late);
  await both.reopen();
  const before = level0[level0.length - 5].maxTxid;
  await proveMomentAfter(both, level0, before, before);
  await proveMomentAfter(both, level0, level0[level0.length - 3].maxTxid, before);
});

async function onceMerged(both: BothPrograms): Promise<LtxFileInfo[]> {
  const litestream = await both.startLitestream();
  await both.commitThroughLitestream(3);
  const last = await both.newestTxid();
  const isMerged = async () => (await both.replica.list(1)).some(({ maxTxid }) => maxTxid >= last);
  await until(isMerged, 'level 1');
  await litestream.stop();
  return both.replica.list(0);
}

async function goOnByTurns(both: BothPrograms): Promise<void> {
  await both.commitThroughBackup(1);
  await both.restoreByBoth();
  const litestream = await both.startLitestream();
  await both.commitThroughLitestream(1);
  await litestream.stop();
  const checker = new OracleChecker();
  try {
    const newest = await checker.prove(await both.restoreByBoth());
    assert.equal(newest.seq, both.stage.ledger().newest?.seq);
  } finally {
    await checker.close();
  }
}

test('without any file of level 0 Jetlite goes on above all levels, where Litestream finds its place again', async (t) => {
  const both = await BothPrograms.open(t);
  if (both === undefined) return;
  const files = await onceMerged(both);
  await both.replica.remove(files);
  await rm(join(both.litestreamFolder, 'ltx'), { recursive: true });
  await both.reopen();
  const end = (await both.replica.list()).reduce((end, { maxTxid }) => (maxTxid > end ? maxTxid : end), 0n);
  await both.commitThroughBackup(1);
  assert.deepEqual(
    (await both.replica.list(0)).map(({ minTxid }) => minTxid),
    [end + 1n],
  );
  await goOnByTurns(both);
});

test('with a merged file as the newest of level 0 Jetlite goes on with single ones, where Litestream finds its place again', async (t) => {
  const both = await BothPrograms.open(t);
  if (both === undefined) return;
  const [one, two] = (await onceMerged(both)).slice(-2);
  const blocks: Uint8Array[] = [];
  const inputs = [one, two].map((file) => ({ name: ltxPath(file), source: both.replica.read(file) }));
  for await (const block of mergeLtx(inputs)) blocks.push(block);
  await both.replica.remove([one, two]);
  await both.reopen();
  const { minTxid } = one;
  const { maxTxid, timestampMs } = two;
  await both.replica.write({ level: 0, minTxid, maxTxid, timestampMs }, () => blocks);
  // Litestream's own copy is that of before; a host without it would look in vain for a file of the last TXID alone.
  await rm(join(both.litestreamFolder, 'ltx'), { recursive: true });
  await both.commitThroughBackup(1);
  assert.deepEqual(
    (await both.replica.list(0)).slice(-2).map((file) => [file.minTxid, file.maxTxid]),
    [
      [minTxid, maxTxid],
      [maxTxid + 1n, maxTxid + 1n],
    ],
  );
  await goOnByTurns(both);
});
