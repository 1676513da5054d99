/** Readers of a live copy who run as another user than its follower: they see everything and can change nothing. */

import assert from 'node:assert/strict';
import { chmodSync, type Stats, statSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { openFileReplica } from '../../../lib/replica/file.js';
import { assertRefused, jetlite } from '../../cli/run.js';
import { CaptureStage, LONG } from '../../support/capture-stage.js';
import { CopyReader } from '../../support/copy-reader.js';
import { CopyReaders, CopyStage } from '../../support/copy-stage.js';
import { FollowRun } from '../../support/follow-run.js';
import { proveState } from '../../support/oracle/check.js';

const NOBODY = 65534;
const BATCHES = LONG ? 1000 : 30;

function isRoot(t: TestContext): boolean {
  if (process.getuid?.() === 0) return true;
  t.skip('only root can be another user');
  return false;
}

const modesOf = (copy: string): number[] =>
  ['', '-wal', '-shm'].map((name) => statSync(copy + name).mode & 0o777);

test('readers of another user see whole committed states, never back in time', async (t) => {
  const stage = isRoot(t) && (await CaptureStage.open(t));
  if (!stage) return;
  const writer = await stage.writer({ rows: [50, 100], rate: 50, autocheckpoint: 200 });
  const replication = await stage.replicate();
  await replication.firstPut();
  chmodSync(stage.folder, 0o755);
  chmodSync(stage.ledgerPath, 0o644);
  const copy = join(stage.folder, 'copy.db');
  const replica = await openFileReplica(stage.replica);
  const run = new FollowRun(t, { replica, output: copy, mode: 0o644 });
  await run.sees(({ type }) => type === 'following');
  const start = (pause: number) => CopyReader.start(t, copy, stage.ledgerPath, pause, NOBODY);
  const readers = await Promise.all([0, 0.1].map(start));
  for (let seen = 0; seen < BATCHES; seen += 10) {
    await run.sees(() => run.events.filter(({ type }) => type === 'applied').length >= seen + 10);
    // One that ends while it reads, and one that is stopped.
    await (await start(0.05)).kill();
    assert.deepEqual((await (await start(0)).stop()).wrong, []);
  }
  const { seq } = await writer.stop();
  await replication.stop();
  for (const reader of readers) {
    const { wrong, reads } = await reader.stop();
    assert.deepEqual(wrong, []);
    assert.ok(reads > 0);
  }
  assert.deepEqual(modesOf(copy), [0o644, 0o644, 0o666]);
  await run.reaches((await replica.list(0)).at(-1)!.maxTxid);
  await run.stop();
  assert.equal((await proveState(copy)).seq, seq);
  assert.ok(!run.events.some(({ type }) => type === 'mending' || type === 'waiting'));
});

test('a reader of another user can neither write nor empty the WAL, nor remove it by closing last', async (t) => {
  const stage = isRoot(t) && (await CopyStage.open(t));
  if (!stage) return;
  chmodSync(stage.source.folder, 0o755);
  const run = new FollowRun(t, { replica: stage.replica, output: stage.path, mode: 0o644 });
  await run.sees(({ type }) => type === 'following');
  const readers = new CopyReaders(t, stage.path);
  await readers.become(NOBODY);
  for (const mode of ['ro', 'rw'] as const) {
    await stage.row();
    await run.reaches(mode === 'ro' ? 2n : 3n);
    const before: Stats = statSync(`${stage.path}-wal`);
    await readers.open('last', mode);
    assert.equal(await readers.count('last'), mode === 'ro' ? 2 : 3);
    await assert.rejects(readers.run('last', 'INSERT INTO t VALUES (NULL, NULL)'), /readonly/);
    await readers.run('last', 'PRAGMA wal_checkpoint(TRUNCATE)').catch(() => undefined);
    await assert.rejects(readers.run('last', 'PRAGMA journal_mode = delete'));
    await readers.close('last');
    const left: Stats = statSync(`${stage.path}-wal`);
    assert.deepEqual([left.ino, left.size], [before.ino, before.size], mode);
  }
  await stage.row();
  await run.reaches(4n);
  await readers.open('next');
  assert.equal(await readers.count('next'), 4);
  assert.ok(!run.events.some(({ type }) => type === 'mending' || type === 'waiting'));
});

test('a copy is private until permissions are asked for, also of one that stands there', async (t) => {
  const stage = await CopyStage.open(t);
  if (stage === undefined) return;
  const follow = async (mode?: number): Promise<number[]> => {
    const run = new FollowRun(t, { replica: stage.replica, output: stage.path, mode });
    await stage.row();
    await run.reaches(BigInt((await stage.replica.list(0)).length));
    await run.stop();
    return modesOf(stage.path);
  };
  assert.deepEqual(await follow(), [0o600, 0o600, 0o600]);
  assert.deepEqual(await follow(0o640), [0o640, 0o640, 0o660]);
  assert.deepEqual(await follow(), [0o640, 0o640, 0o660]);
  const restored = join(stage.source.folder, 'restored.db');
  const restore = (mode: string) =>
    jetlite(['restore', stage.replica.url, '-o', restored, '--force', '--mode', mode]);
  assert.equal((await restore('0644')).exitCode, 0);
  assert.equal(statSync(restored).mode & 0o777, 0o644);
  assertRefused(await restore('44'), 2, /--mode: expected permissions such as 600, 640 or 644, found "44"/);
});
