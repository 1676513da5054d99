/** How long a replication that is told to stop waits for a server that has gone silent. */

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect } from 'nats';
import { assertRefused, jetlite, startJetlite } from '../../cli/run.js';
import { CaptureStage } from '../../support/capture-stage.js';
import { makeBucket } from '../../support/nats-replica.js';
import { type NatsServer, startNatsServer } from '../../support/nats-server.js';
import { scratchFolder } from '../../support/scratch.js';
import { sqliteShell } from '../../support/sqlite.js';

/** More than it takes unless told otherwise. */
const PAUSE_MS = 9000;
/** More than a server takes in between two looks. */
const DATABASE_MB = 100;
const SETTLED_MS = 1000;

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

/** Waits until the server has got some of an upload, and makes it stand still. */
async function stallMidway(server: NatsServer): Promise<void> {
  const connection = await connect({ servers: server.url });
  const { streams } = await connection.jetstreamManager();
  while ((await streams.info('OBJ_backups')).state.bytes === 0) await sleep(2);
  server.pause();
  await connection.close();
  await sleep(SETTLED_MS);
}

for (const command of ['backup', 'replicate'] as const) {
  test(`${command} in the middle of its first upload ends when it is told to stop and the server is silent`, async (t) => {
    const sqlite = sqliteShell(t);
    const server = sqlite && (await startNatsServer(t));
    if (!server) return;
    await makeBucket(server);
    const app = join(await scratchFolder(t), 'app.db');
    const rows = `SELECT randomblob(1000000) FROM generate_series(1, ${DATABASE_MB})`;
    await sqlite.run(app, `PRAGMA journal_mode = WAL; CREATE TABLE note AS ${rows};`);
    const running = startJetlite([command, app, `${server.url}/backups`]);
    await stallMidway(server);
    assert.equal(running.child.exitCode, null);
    running.child.kill('SIGTERM');
    const why =
      command === 'backup' ? /the put was (stopped|interrupted)/ : /stopped before .* had its last commits/;
    assertRefused(await running.ended, 1, why);
    server.resume();
    const again = await jetlite(['backup', app, `${server.url}/backups`]);
    assert.equal(again.exitCode, 0, again.stderr);
    const proof = await jetlite(['verify', `${server.url}/backups`, '--against', app]);
    assert.equal(proof.exitCode, 0, proof.stderr);
  });
}
