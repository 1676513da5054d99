import assert from 'node:assert/strict';
import { cp, readFile, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { type LevelSettings, type TidyEvent, type TidyOptions, tidy } from '../../../lib/jobs/tidy/tidy.js';
import { openFileReplica } from '../../../lib/replica/file.js';
import { ltxPath } from '../../../lib/replica/names.js';
import type { LtxFileInfo, Replica } from '../../../lib/replica/replica.js';
import { replicaWith } from '../../support/homes.js';
import { assertLevelRules, assertPromises, restoredBytes } from '../../support/level-rules.js';
import { databaseBytes, type History, makeHistory, putLtx, timeOf } from '../../support/ltx-history.js';
import { type Random, randomSource } from '../../support/random.js';
import { scratchFolder } from '../../support/scratch.js';
import { Stopped, stoppedReplica } from '../../support/stopped-replica.js';

/** One TXID a second; everything happens within minutes of the history's own clock. */
const SETTINGS: LevelSettings = {
  levelIntervalsMs: [5000, 20_000, 60_000],
  snapshotIntervalMs: 50_000,
  snapshotRetentionMs: 80_000,
  level0RetentionMs: 12_000,
};
const LONG = process.env.JETLITE_LONG === '1';

async function tidied(replica: Replica, nowMs: number, options: TidyOptions = {}) {
  const result = await tidy(replica, { settings: SETTINGS, nowMs, ...options });
  assert.equal(result.kind, 'done');
  return result as Extract<typeof result, { kind: 'done' }>;
}

function historyOf(random: Random, length: number): History {
  return makeHistory(length, 512, 12, (below) => random.below(below));
}

function names(files: readonly LtxFileInfo[]): string[] {
  return files.map((file) => `${file.level}:${file.minTxid}-${file.maxTxid}`);
}

test('through a history of merges, snapshots and removals every promised moment is led to, with the right bytes', async (t) => {
  const random = randomSource(t);
  const length = LONG ? 1000 : 220;
  const history = historyOf(random, length);
  const replica = await openFileReplica(await scratchFolder(t));
  let largest = 0;
  for (let txid = 1; txid <= length; ) {
    for (let more = 1 + random.below(12); more > 0 && txid <= length; more--) {
      await putLtx(replica, history, 0, txid, txid);
      txid++;
    }
    const nowMs = timeOf(txid - 1) + random.below(1000);
    const { stuck } = await tidied(replica, nowMs);
    assert.deepEqual(stuck, []);
    await assertPromises(replica, history, txid - 1, SETTINGS, nowMs, () => random.oneIn(40));
    largest = Math.max(largest, (await replica.list()).length);
  }
  const files = await replica.list();
  t.diagnostic(`${files.length} files at the end, ${largest} at the most`);
  assert.ok(largest < 120, `${largest} files`);
  for (const level of [1, 2, 3, 9])
    assert.ok(
      files.some((file) => file.level === level),
      `level ${level}`,
    );
  // What every reader knows the replica's end by.
  assert.equal(files.filter(({ level }) => level === 0).at(-1)!.maxTxid, BigInt(length));
});

test('killed at any change, the replica keeps every promise, and the next round finishes the work', async (t) => {
  const random = randomSource(t);
  const history = historyOf(random, 150);
  const folder = await scratchFolder(t);
  const template = join(folder, 'template');
  const replica = await openFileReplica(template);
  for (let txid = 1; txid <= 150; txid++) {
    await putLtx(replica, history, 0, txid, txid);
    if (txid === 70 || txid === 90) await tidied(replica, timeOf(txid));
  }
  const nowMs = timeOf(150);
  const finished = join(folder, 'finished');
  await cp(template, finished, { recursive: true, preserveTimestamps: true });
  const whole = stoppedReplica(await openFileReplica(finished), Number.POSITIVE_INFINITY, 'before');
  await tidied(whole.replica, nowMs);
  const expected = names(await whole.replica.list());
  t.diagnostic(`${whole.changes} changes`);
  assert.ok(whole.changes > 50);
  const step = LONG ? 1 : 12;
  for (let allowed = random.below(step); allowed < whole.changes; allowed += step) {
    const when = allowed % 2 === 0 ? 'before' : 'after';
    const copy = join(folder, `stopped-${allowed}`);
    await cp(template, copy, { recursive: true, preserveTimestamps: true });
    const stopped = stoppedReplica(await openFileReplica(copy), allowed, when);
    // The last change of all gives the lease back, of which a failure says nothing.
    await tidied(stopped.replica, nowMs).catch((error) => assert.ok(error instanceof Stopped, error));
    const again = await openFileReplica(copy);
    await assertPromises(again, history, 150, SETTINGS, nowMs, () => random.oneIn(60));
    await again.removeExtra('lease');
    await tidied(again, nowMs);
    assert.deepEqual(names(await again.list()), expected, `stopped at ${allowed}`);
    await assertPromises(again, history, 150, SETTINGS, nowMs, () => random.oneIn(60));
  }
});

test('level 1 begins after the full first file once there is a snapshot, and without one with it', async (t) => {
  const history = historyOf(randomSource(t), 20);
  const folder = await scratchFolder(t);
  const one = await openFileReplica(join(folder, 'one'));
  const other = await openFileReplica(join(folder, 'other'));
  for (const replica of [one, other]) {
    for (let txid = 1; txid <= 20; txid++) await putLtx(replica, history, 0, txid, txid);
  }
  const options = { retain: false };
  assert.deepEqual(names((await tidied(one, timeOf(20), options)).merged), [
    '9:1-20',
    '1:2-4',
    '1:5-9',
    '1:10-14',
    '1:15-19',
    '2:2-19',
  ]);
  assert.deepEqual(names((await tidied(other, timeOf(20), { ...options, snapshot: 'none' })).merged), [
    '1:1-4',
    '1:5-9',
    '1:10-14',
    '1:15-19',
    '2:1-19',
  ]);
  assert.deepEqual((await tidied(one, timeOf(20), options)).merged, []);
});

test('a snapshot is made when it is due or asked for, and not twice of one state', async (t) => {
  const history = historyOf(randomSource(t), 60);
  const replica = await openFileReplica(await scratchFolder(t));
  const snapshots = async () => names(await replica.list(9));
  const options = { retain: false };
  for (let txid = 1; txid <= 10; txid++) await putLtx(replica, history, 0, txid, txid);
  await tidied(replica, timeOf(10), options);
  await tidied(replica, timeOf(70), options);
  assert.deepEqual(await snapshots(), ['9:1-10']);
  await putLtx(replica, history, 0, 11, 11);
  await tidied(replica, timeOf(59), options);
  assert.deepEqual(await snapshots(), ['9:1-10']);
  await tidied(replica, timeOf(59), { ...options, snapshot: 'now' });
  await tidied(replica, timeOf(59), { ...options, snapshot: 'now' });
  assert.deepEqual(await snapshots(), ['9:1-10', '9:1-11']);
  await putLtx(replica, history, 0, 12, 12);
  await tidied(replica, timeOf(61), options);
  assert.deepEqual(await snapshots(), ['9:1-10', '9:1-11', '9:1-12']);
});

test('a hole at level 0 stops level 1 until a snapshot reaches beyond it, and is bridged then', async (t) => {
  const history = historyOf(randomSource(t), 60);
  const replica = await openFileReplica(await scratchFolder(t));
  for (let txid = 1; txid <= 40; txid++) {
    if (txid === 22) await tidied(replica, timeOf(21));
    if (txid < 24 || txid > 26) await putLtx(replica, history, 0, txid, txid);
  }
  const events: TidyEvent[] = [];
  const onEvent = (event: TidyEvent) => events.push(event);
  const { stuck } = await tidied(replica, timeOf(40), { onEvent });
  assert.match(stuck[0], /level 1 cannot go on: no files lead from TXID 0{14}17/);
  assert.ok(events.some(({ type }) => type === 'hole'));
  const files = await replica.list();
  assert.equal(files.filter(({ level }) => level === 1).at(-1)!.maxTxid, 23n);
  // What cannot be covered stays.
  assert.equal(files.filter(({ level, maxTxid }) => level === 0 && maxTxid > 23n).length, 14);
  await putLtx(replica, history, 9, 1, 33);
  assert.deepEqual((await tidied(replica, timeOf(40))).stuck, []);
  const after = await replica.list();
  assertLevelRules(after);
  assert.deepEqual(names(after.filter(({ level }) => level === 1)).slice(-3), [
    '1:20-23',
    '1:24-34',
    '1:35-39',
  ]);
  for (const txid of [23, 34, 39, 40]) {
    const { bytes } = await restoredBytes(replica, after, { kind: 'txid', txid: BigInt(txid) });
    assert.ok(bytes.equals(databaseBytes(history, txid)), `TXID ${txid}`);
  }
});

test('a clock that ran ahead for a while does not keep files from being merged', async (t) => {
  const history = historyOf(randomSource(t), 30);
  const folder = await scratchFolder(t);
  const replica = await openFileReplica(folder);
  for (let txid = 1; txid <= 20; txid++) {
    const file = await putLtx(replica, history, 0, txid, txid);
    const time = timeOf(txid >= 12 ? 100_000 + txid : txid) / 1000;
    await utimes(join(folder, ltxPath(file)), time, time);
  }
  await tidied(replica, timeOf(20), { retain: false });
  assert.equal((await replica.list(1)).at(-1)!.maxTxid, 20n);
});

async function flip(folder: string, file: LtxFileInfo): Promise<void> {
  const path = join(folder, ltxPath(file));
  const bytes = await readFile(path);
  bytes[bytes.length >> 1] ^= 4;
  await writeFile(path, bytes);
  await utimes(path, file.timestampMs / 1000, file.timestampMs / 1000);
}

async function damagedReplica(t: TestContext, history: History) {
  const folder = await scratchFolder(t);
  const replica = await openFileReplica(folder);
  for (let txid = 1; txid <= 19; txid++) await putLtx(replica, history, 0, txid, txid);
  await tidied(replica, timeOf(19));
  for (let txid = 20; txid <= 43; txid++) await putLtx(replica, history, 0, txid, txid);
  const damaged = (await replica.list(0)).find(({ maxTxid }) => maxTxid === 27n)!;
  await flip(folder, damaged);
  return { folder, replica };
}

test('a damaged file stops its level, is told of once, and the other levels go on', async (t) => {
  const history = historyOf(randomSource(t), 45);
  const { replica } = await damagedReplica(t, history);
  const events: TidyEvent[] = [];
  const damaged = new Set<string>();
  const options = { damaged, onEvent: (event: TidyEvent) => events.push(event), snapshot: 'none' as const };
  await tidied(replica, timeOf(43), options);
  const again = await tidied(replica, timeOf(43), options);
  assert.equal(events.filter(({ type }) => type === 'damaged').length, 1);
  assert.match(events.find(({ type }) => type === 'damaged')!.message, /^ltx\/0\/0{14}1b-0{14}1b\.ltx/);
  assert.match(again.stuck[0], /level 1 cannot go on/);
  const files = await replica.list();
  assert.equal(files.filter(({ level }) => level === 1).at(-1)!.maxTxid, 24n);
  assert.equal(files.filter(({ level }) => level === 2).at(-1)!.maxTxid, 24n);
  assert.ok(files.some(({ level, maxTxid }) => level === 0 && maxTxid === 26n));
});

test('a damaged file is gone around where a snapshot leads on', async (t) => {
  const history = historyOf(randomSource(t), 45);
  const { replica } = await damagedReplica(t, history);
  await putLtx(replica, history, 9, 1, 31);
  const { stuck } = await tidied(replica, timeOf(43), { snapshot: 'none' });
  assert.deepEqual(stuck, []);
  const files = await replica.list();
  assertLevelRules(files);
  const { bytes } = await restoredBytes(replica, files, { kind: 'txid', txid: 39n });
  assert.ok(bytes.equals(databaseBytes(history, 39)));
});

test('what another writer replaces or removes meanwhile is neither used nor removed in its old version', async (t) => {
  const history = historyOf(randomSource(t), 40);
  const replica = await openFileReplica(await scratchFolder(t));
  for (let txid = 1; txid <= 40; txid++) await putLtx(replica, history, 0, txid, txid);
  const options = { snapshot: 'none' as const };
  let changed = 0;
  const meddled = replicaWith(replica, {
    async *read(file: LtxFileInfo) {
      // Another program merges the same files, and removes two of them.
      if (changed++ === 6) {
        await putLtx(replica, history, 1, 1, 14);
        const files = await replica.list(0);
        await replica.remove(files.filter(({ maxTxid }) => maxTxid === 7n || maxTxid === 8n));
      }
      yield* replica.read(file);
    },
  });
  await tidied(meddled, timeOf(40), options);
  const files = await replica.list();
  const { bytes } = await restoredBytes(replica, files, { kind: 'newest' });
  assert.ok(bytes.equals(databaseBytes(history, 40)));
});
