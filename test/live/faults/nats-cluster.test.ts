/** Replication into a bucket on three servers while they die and come back, and everything restorable afterwards. */

import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { CaptureStage, LONG } from '../../support/capture-stage.js';
import { bucketBytes, makeBucket, streamLeader } from '../../support/nats-replica.js';
import { type NatsServer, startNatsCluster } from '../../support/nats-server.js';

const MB = 1e6;

interface Scene {
  readonly stage: CaptureStage;
  readonly servers: readonly NatsServer[];
  readonly replica: string;
}

async function openScene(t: TestContext): Promise<Scene | undefined> {
  const stage = await CaptureStage.open(t);
  const servers = stage && (await startNatsCluster(t));
  if (stage === undefined || servers === undefined) return undefined;
  await makeBucket(servers[0], 'backups', { replicas: 3 });
  const hosts = servers.map(({ port }) => `127.0.0.1:${port}`).join(',');
  return { stage, servers, replica: `nats://${hosts}/backups` };
}

test('a first backup and the commits beside it survive the leader’s death in the middle of the upload', async (t) => {
  const scene = await openScene(t);
  if (scene === undefined) return;
  const { stage, servers, replica } = scene;
  const rows = LONG ? 60_000 : 3000;
  const writer = await stage.writer({ paused: true, payload: [4000, 6000], rate: 100, seed: 21 });
  for (let done = 0; done < rows; done += 1500) await writer.transaction({ rows: 1500, kind: 'insert' });
  const replication = await stage.replicate({ replica });
  while ((await bucketBytes(servers[0])) < MB) await delay(5);
  const leader = await streamLeader(servers);
  const atDeath = await bucketBytes(servers[(leader + 1) % 3]);
  await servers[leader].kill();
  await writer.resume();
  await replication.nextPut();
  await servers[leader].restart();
  await replication.nextPut();
  await writer.stop();
  await replication.stop();
  t.diagnostic(`killed at ${(atDeath / MB).toFixed(0)} MB`);
  const { proven } = await stage.prove({ replica, limit: 4 });
  assert.ok(proven >= 2);
});

test('each server of a cluster in turn, the client’s own among them, may be killed or restarted under a replication', async (t) => {
  const scene = await openScene(t);
  if (scene === undefined) return;
  const { stage, servers, replica } = scene;
  const writer = await stage.writer({ rate: 200, seed: 22 });
  const replication = await stage.replicate({ replica });
  await replication.firstPut();
  // Who is connected to the first server, as everyone is to begin with, loses it here.
  for (const [i, server] of servers.entries()) {
    await streamLeader(servers);
    if (i % 2 === 0) await server.kill();
    else await server.stop();
    await replication.nextPut();
    await server.restart();
    await replication.nextPut();
  }
  await streamLeader(servers);
  const { commits } = await writer.stop();
  await replication.stop();
  const { proven, txids } = await stage.prove({ replica, limit: 12 });
  t.diagnostic(`${commits} commits, ${proven} of ${txids} TXIDs proven`);
});
