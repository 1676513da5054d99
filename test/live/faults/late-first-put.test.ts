/** A first put that was given up and arrives all the same, while the database has gone on: nothing is built on the wrong one. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { backup } from '../../../lib/jobs/backup.js';
import { CaptureStage } from '../../support/capture-stage.js';
import { startNatsProxy } from '../../support/nats-proxy.js';
import { makeBucket, openBucketReplica } from '../../support/nats-replica.js';
import { startNatsServer } from '../../support/nats-server.js';

/** What becomes of the messages of the first put and what follows, one after the other; then all pass. */
const STORIES: Record<
  string,
  () => (subject: string) => 'hold' | 'pass' | 'release' | 'swallow answer' | 'cut before'
> = {
  'just before the second try does': () => {
    const fates = ['hold', 'hold', 'pass', 'release'] as const;
    let next = 0;
    return (subject) => (/^\$O\.backups\.[CM]\./.test(subject) ? (fates[next++] ?? 'pass') : 'pass');
  },
  'and cannot be asked about for longer than it is tried': () => {
    let untilMs = 0;
    return (subject) => {
      if (untilMs === 0) {
        if (!subject.startsWith('$O.backups.M.')) return 'pass';
        untilMs = Date.now() + 4000;
        return 'swallow answer';
      }
      return Date.now() < untilMs ? 'cut before' : 'pass';
    };
  },
};

for (const [how, begin] of Object.entries(STORIES)) {
  test(`a first put that arrives ${how} is gone on from with the whole database`, {
    timeout: 120_000,
  }, async (t) => {
    const stage = await CaptureStage.open(t);
    const server = stage && (await startNatsServer(t));
    if (stage === undefined || server === undefined) return;
    await makeBucket(server);
    const proxy = await startNatsProxy(t, server, begin());
    const writer = await stage.writer({ autocheckpoint: 200, rate: 50, seed: 21, rows: [1, 10] });
    const replication = await stage.replicate({
      replica: `${proxy.url}/backups`,
      nats: { timeoutMs: 500, reconnectWaitMs: 20 },
    });
    await replication.ready();
    for (let i = 0; i < 10; i++) await replication.nextPut();
    await writer.stop();
    await replication.stop();
    const replica = await openBucketReplica(t, server);
    const snapshots = await replica.list(9);
    assert.deepEqual(
      snapshots.map(({ maxTxid }) => maxTxid),
      [2n],
    );
    await stage.prove({ replica: `${server.url}/backups` });
  });
}

test('a first backup whose earlier try arrives in its place is followed by the whole database', async (t) => {
  const stage = await CaptureStage.open(t);
  const server = stage && (await startNatsServer(t));
  if (stage === undefined || server === undefined) return;
  await makeBucket(server);
  const proxy = await startNatsProxy(t, server, STORIES['just before the second try does']());
  const writer = await stage.writer({ autocheckpoint: 200, rate: 50, seed: 22, rows: [1, 10] });
  const replica = await openBucketReplica(t, proxy, 'backups', {
    nats: { timeoutMs: 500, reconnectWaitMs: 20 },
  });
  const { txid } = await backup({ database: stage.database, replica });
  assert.ok(txid >= 2n);
  assert.deepEqual(
    (await replica.list(9)).map(({ maxTxid }) => maxTxid),
    [2n],
  );
  await writer.stop();
  await backup({ database: stage.database, replica });
  await stage.prove({ replica: `${server.url}/backups` });
});
