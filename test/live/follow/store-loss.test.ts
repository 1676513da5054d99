/** A follower whose server has lost what it had acknowledged: readers keep what they have and only ever go forward. */

import assert from 'node:assert/strict';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { CaptureStage } from '../../support/capture-stage.js';
import { CopyReader } from '../../support/copy-reader.js';
import { FollowRun } from '../../support/follow-run.js';
import { makeBucket, openBucketReplica } from '../../support/nats-replica.js';
import { type NatsServer, startNatsServer } from '../../support/nats-server.js';
import { copyStore } from '../../support/nats-store.js';
import { proveState } from '../../support/oracle/check.js';
import type { OracleWriter } from '../../support/oracle/writer.js';
import type { Replication } from '../../support/replication.js';

const WORK = { autocheckpoint: 200, rate: 50, rows: [50, 100] } as const;
const LIMIT = { timeout: 120_000 };
const BEHIND = /does not hold TXID .* any more, nor a later one/;

interface Scene {
  readonly stage: CaptureStage;
  readonly server: NatsServer;
  readonly writer: OracleWriter;
  readonly copy: string;
  readonly follower: FollowRun;
  readonly readers: readonly CopyReader[];
  /** Puts the server's store back to what it was some puts ago. */
  rollBack(): Promise<void>;
  replicate(): Promise<Replication>;
}

async function puts(replication: Replication, count: number): Promise<void> {
  for (let i = 0; i < count; i++) await replication.nextPut();
}

/** A copy that follows a database being written, and a store of some puts ago to fall back to; nobody replicates now. */
async function open(t: TestContext, stopped: (replication: Replication) => unknown) {
  const stage = await CaptureStage.open(t);
  const server = stage && (await startNatsServer(t));
  if (stage === undefined || server === undefined) return undefined;
  await makeBucket(server);
  const replicate = async (): Promise<Replication> => {
    const started = await stage.replicate({
      replica: `${server.url}/backups`,
      nats: { reconnectWaitMs: 50 },
    });
    await started.ready();
    return started;
  };
  const writer = await stage.writer(WORK);
  const replication = await replicate();
  await puts(replication, 10);
  await server.kill();
  const putBack = await copyStore(server);
  await server.restart();
  await puts(replication, 10);
  const copy = join(stage.folder, 'copy.db');
  const replica = await openBucketReplica(t, server, 'backups', { nats: { reconnectWaitMs: 50 } });
  const follower = new FollowRun(t, { replica, output: copy });
  await follower.sees(({ type }) => type === 'following');
  const readers = await Promise.all(
    [0.01, 0.2].map((pause) => CopyReader.start(t, copy, stage.ledgerPath, pause)),
  );
  await puts(replication, 5);
  await stopped(replication);
  const rollBack = async (): Promise<void> => {
    await server.kill();
    await putBack();
    await server.restart();
    await follower.sees(({ type, message }) => type === 'waiting' && BEHIND.test(message));
  };
  return { stage, server, writer, replication, copy, follower, readers, rollBack, replicate };
}

/** The copy comes to the writer's last commit; every read on the way was right, and none older than the one before. */
async function assertForward(scene: Scene, replication: Replication, lost: bigint): Promise<void> {
  const { follower, writer, readers, copy } = scene;
  await follower.sees(({ type, txid }) => type === 'back' && txid > lost);
  const { seq } = await writer.stop();
  await replication.stop();
  const newest = replication.events.findLast((event) => event.type === 'put')!.file.maxTxid;
  await follower.reaches(BigInt(newest));
  for (const reader of readers) {
    const { wrong, reads } = await reader.stop();
    assert.deepEqual(wrong, []);
    assert.ok(reads > 0);
  }
  await follower.stop();
  assert.equal((await proveState(copy)).seq, seq);
  const told = follower.events.filter(({ type, message }) => type === 'waiting' && BEHIND.test(message));
  assert.equal(told.length, 1, 'it is said once');
  const txids = follower.events.map(({ txid }) => txid);
  assert.deepEqual(
    txids,
    [...txids].sort((a, b) => Number(a - b)),
  );
}

test('a store that was rolled back is waited for until its replicator has healed it', LIMIT, async (t) => {
  const scene = await open(t, (replication) => replication.signal('SIGSTOP'));
  if (scene === undefined) return;
  const { follower, replication, rollBack } = scene;
  await rollBack();
  const lost = follower.events.at(-1)!.txid;
  replication.signal('SIGCONT');
  await assertForward(scene, replication, lost);
});

test(
  'numbers that a replicator without memory gives again lead on by a whole database beyond them',
  LIMIT,
  async (t) => {
    const scene = await open(t, (replication) => replication.kill());
    if (scene === undefined) return;
    const { stage, follower, rollBack, replicate } = scene;
    await rollBack();
    const lost = follower.events.at(-1)!.txid;
    await rm(join(stage.folder, 'source', '.app.db-jetlite'), { recursive: true });
    const anew = await replicate();
    await assertForward(scene, anew, lost);
  },
);
