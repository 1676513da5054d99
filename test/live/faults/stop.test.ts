/** How long a replication that is told to stop waits for a server that has gone silent. */

import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { CaptureStage } from '../../support/capture-stage.js';
import { makeBucket } from '../../support/nats-replica.js';
import { startNatsServer } from '../../support/nats-server.js';

/** More than it takes unless told otherwise. */
const PAUSE_MS = 9000;

async function silentUnder(t: TestContext, stopTimeoutMs: number) {
  const server = await startNatsServer(t);
  const stage = server && (await CaptureStage.open(t));
  if (server === undefined || stage === undefined) return undefined;
  await makeBucket(server);
  const replica = `${server.url}/backups`;
  const writer = await stage.writer({ paused: true });
  await writer.command('step 5');
  const replication = await stage.replicate({ replica, stopTimeoutMs, nats: { timeoutMs: 60_000 } });
  await replication.firstPut();
  server.pause();
  const spooled = replication.next('spooled');
  await writer.command('step 1');
  await spooled;
  return { server, stage, replica, writer, replication };
}

test('it gives up when its time is over, and says where the rest waits', async (t) => {
  const scene = await silentUnder(t, 100);
  if (scene === undefined) return;
  await assert.rejects(scene.replication.stop(), /They wait in .*stopped before .* had its last commits/s);
});

test('it waits as long as it may, and ends with everything in the replica', async (t) => {
  const scene = await silentUnder(t, 120_000);
  if (scene === undefined) return;
  const { server, stage, replica, writer, replication } = scene;
  const stopped = replication.stop();
  await sleep(PAUSE_MS);
  server.resume();
  await stopped;
  await writer.stop();
  await stage.prove({ replica });
});
