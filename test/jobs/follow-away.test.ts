/** What a follower of a bucket does when the server is away, and when it comes back under another name. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { backup } from '../../lib/jobs/backup.js';
import { CopyReaders, CopyStage } from '../support/copy-stage.js';
import { FollowRun } from '../support/follow-run.js';
import { makeBucket, openBucketReplica } from '../support/nats-replica.js';
import { freePort, startNatsServer } from '../support/nats-server.js';

test('while the server is away the copy stays and says so, and catches up when it is back', async (t) => {
  const made = await CopyStage.open(t);
  const server = made && (await startNatsServer(t));
  if (!made || !server) return;
  await makeBucket(server);
  const write = await openBucketReplica(t, server);
  const put = () => backup({ database: made.source.path, replica: write });
  await put();
  const replica = await openBucketReplica(t, server, 'backups', {
    nats: { reconnectWaitMs: 100, timeoutMs: 500 },
  });
  const run = new FollowRun(t, { replica, output: made.path, listIntervalMs: 200 });
  const readers = new CopyReaders(t, made.path);
  await run.sees((event) => event.type === 'following');
  await server.stop();
  const { message } = await run.sees((event) => event.type === 'waiting');
  assert.match(message, /stays at TXID 0000000000000001/);
  await readers.open('one');
  assert.equal(await readers.count('one'), 1);
  await server.restart();
  await run.sees((event) => event.type === 'back');
  await made.source.run('INSERT INTO t VALUES (NULL, NULL)');
  await put();
  await run.reaches(2n);
  assert.equal(await readers.count('one'), 2);
});

test('a server that goes away before there is a copy is waited for, and the copy made when it is back', async (t) => {
  const made = await CopyStage.open(t);
  const server = made && (await startNatsServer(t));
  if (!made || !server) return;
  await makeBucket(server);
  await backup({ database: made.source.path, replica: await openBucketReplica(t, server) });
  const nats = { reconnectWaitMs: 100, timeoutMs: 500 };
  const replica = await openBucketReplica(t, server, 'backups', { nats });
  await server.stop();
  const run = new FollowRun(t, { replica, output: made.path });
  const { message } = await run.sees((event) => event.type === 'waiting');
  assert.match(message, /refused .*; trying again$/);
  await server.restart();
  await run.sees((event) => event.type === 'following');
  const readers = new CopyReaders(t, made.path);
  await readers.open('one');
  assert.equal(await readers.count('one'), 1);
});

test('a copy is gone on with when the URL of its replica is written otherwise, and no other replica is', async (t) => {
  const stage = await CopyStage.open(t);
  const server = stage && (await startNatsServer(t));
  if (!stage || !server) return;
  await makeBucket(server);
  const here = await openBucketReplica(t, server);
  const other = await openBucketReplica(t, server, 'backups/other');
  const elsewhere = `nats://127.0.0.1:${await freePort()},localhost:${server.port}`;
  const respelled = await openBucketReplica(t, { url: elsewhere });
  for (const replica of [here, other]) await backup({ database: stage.source.path, replica });
  const first = new FollowRun(t, { replica: here, output: stage.path });
  await first.reaches(1n);
  await first.stop();
  await stage.source.run('INSERT INTO t VALUES (NULL, NULL)');
  await backup({ database: stage.source.path, replica: here });
  const again = new FollowRun(t, { replica: respelled, output: stage.path });
  await again.reaches(2n);
  assert.equal((await again.stop()).restored, false);
  await assert.rejects(new FollowRun(t, { replica: other, output: stage.path }).ended, {
    code: 'OUTPUT',
    message: `${stage.path} follows ${respelled.url}, not ${other.url}`,
  });
});
