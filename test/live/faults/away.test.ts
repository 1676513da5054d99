/** A NATS server that goes away while a database is replicated: nothing is lost, and every moment keeps its state. */

import assert from 'node:assert/strict';
import { readdir, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { assertMoments, commitIntoSpool, LIMIT, NATS, scenario } from '../../support/away-scene.js';
import { CaptureStage, LONG } from '../../support/capture-stage.js';
import { sqliteShell } from '../../support/sqlite.js';

/** How long the longest outage takes. */
const OUTAGE_MS = LONG ? 60_000 : 0;

/** Nobody but its owner may look into a folder of state: it holds what the database holds. */
async function assertPrivate(folder: string): Promise<void> {
  const inside = await readdir(folder, { recursive: true });
  assert.ok(inside.some((name) => name.endsWith('.spool')));
  for (const path of [folder, ...inside.map((name) => join(folder, name))]) {
    const { mode } = await stat(path);
    assert.equal(mode & 0o077, 0, `${path}: ${mode.toString(8)}`);
  }
}

scenario('what is committed while the server is down keeps a state for each moment', async (scene) => {
  const replication = await scene.replicate();
  await replication.ready();
  await scene.server.kill();
  const killedAt = performance.now();
  const seqs = await commitIntoSpool(scene, replication, 25);
  while (performance.now() - killedAt < OUTAGE_MS) {
    seqs.push(...(await commitIntoSpool(scene, replication, 1)));
    await sleep(100);
  }
  await scene.server.restart();
  await replication.waitFor((event) => event.type === 'put' && event.file.maxTxid >= 20n);
  const { images } = await replication.stop();
  assert.equal(images, 1, 'the first one');
  await assertMoments(scene, seqs);
});

scenario('a run that kept no state keeps every moment from the first on', async (scene, t) => {
  const shell = sqliteShell(t);
  if (shell === undefined) return;
  const { stage, server } = scene;
  // So small that a commit leaves hardly a page as it was: whose it is cannot be told from the first change.
  const database = join(stage.folder, 'small.db');
  const replica = `${server.url}/backups/small`;
  await shell.run(database, 'PRAGMA journal_mode = WAL; CREATE TABLE t(x);');
  const first = await scene.replicate({ database, replica });
  await first.ready();
  await first.stop();
  const second = await scene.replicate({ database, replica, stateDir: join(stage.folder, 'elsewhere') });
  await second.ready();
  await server.kill();
  for (let i = 0; i < 4; i++) {
    const spooled = second.next('spooled');
    await shell.run(database, `INSERT INTO t VALUES (${i});`);
    await spooled;
  }
  await server.restart();
  assert.equal((await second.stop()).txid, '5', 'a file for the first state and for each commit');
});

scenario(
  'a process killed while the server is down leaves what a later one puts, the server being back',
  async (scene) => {
    const killed = await scene.replicate();
    await killed.ready();
    await scene.server.kill();
    const seqs = await commitIntoSpool(scene, killed, 8);
    await killed.kill();
    await scene.server.restart();
    const next = await scene.replicate();
    await next.ready();
    const { images } = await next.stop();
    assert.equal(images, 0, 'it went on where the other one stood');
    await assertMoments(scene, seqs);
  },
);

scenario(
  'a process started while the server is still down begins with what a killed one left',
  async (scene) => {
    const killed = await scene.replicate();
    await killed.ready();
    await scene.server.kill();
    const seqs = await commitIntoSpool(scene, killed, 8);
    await killed.kill();
    const next = await scene.replicate();
    await next.waitFor((event) => event.type === 'retry');
    await scene.server.restart();
    await next.ready();
    await next.stop();
    await assertMoments(scene, seqs);
  },
);

scenario(
  'told to stop while the server is down, it says where the last commits wait, and puts them when started again',
  async (scene) => {
    const stopped = await scene.replicate();
    await stopped.ready();
    await scene.server.kill();
    const seqs = await commitIntoSpool(scene, stopped, 3);
    seqs.push((await scene.writer.command('step 1')).seq);
    await assert.rejects(
      stopped.stop(),
      /"They wait in [^"]*\.app\.db-jetlite\/[0-9a-f]+\/spool: start again/,
    );
    await assertPrivate(join(scene.stage.folder, 'source', '.app.db-jetlite'));
    await scene.server.restart();
    const next = await scene.replicate();
    await next.ready();
    await next.stop();
    await assertMoments(scene, seqs);
  },
);

scenario(
  'what waits on disk is dropped, and said, if another program went on with the replica meanwhile',
  async (scene) => {
    const { stage, writer } = scene;
    const killed = await scene.replicate();
    await killed.ready();
    await scene.server.kill();
    await commitIntoSpool(scene, killed, 5);
    await killed.kill();
    await scene.server.restart();
    // From another folder of state: it knows nothing of what waits there.
    const other = await scene.replicate({ stateDir: join(stage.folder, 'elsewhere') });
    await other.ready();
    const put = other.nextPut();
    await writer.command('step 1');
    await put;
    // It got less far than what waits: laid behind its files, the rest would be changes of one state upon another.
    await other.stop();
    const next = await scene.replicate();
    await next.waitFor((event) => event.level === 'warn' && /5 files in .* are dropped/.test(event.message));
    await next.ready();
    await next.stop();
    await assertMoments(scene, []);
  },
);

scenario(
  'a server that stalls for longer than the timeout is waited for, and takes everything in the end',
  async (scene) => {
    const replication = await scene.replicate({ nats: { reconnectWaitMs: 50, timeoutMs: 300 } });
    await replication.ready();
    scene.server.pause();
    const seqs = await commitIntoSpool(scene, replication, 5);
    await replication.waitFor((event) => event.type === 'retry');
    seqs.push(...(await commitIntoSpool(scene, replication, 5)));
    scene.server.resume();
    await replication.waitFor((event) => event.type === 'back');
    await replication.stop();
    await assertMoments(scene, seqs);
  },
);

test(
  'a folder that vanishes is not begun anew without its beginning, and gets everything when it is back',
  LIMIT,
  async (t) => {
    const stage = await CaptureStage.open(t);
    if (stage === undefined) return;
    const { replica } = stage;
    const writer = await stage.writer({ paused: true, sizes: [[1, 1, 40]], autocheckpoint: 20 });
    await writer.command('step 5');
    const replication = await stage.replicate();
    await replication.ready();
    const aside = join(stage.folder, 'unmounted');
    await rename(replica, aside);
    const seqs = await commitIntoSpool({ writer }, replication, 5);
    assert.ok(replication.events.some(({ type, message }) => type === 'retry' && /is gone/.test(message)));
    await assert.rejects(readdir(join(replica, 'ltx')), { code: 'ENOENT' });
    await rm(replica, { recursive: true, force: true });
    await rename(aside, replica);
    await replication.waitFor(({ type }) => type === 'back');
    await replication.stop();
    await assertMoments({ stage, replica, writer }, seqs);
  },
);

scenario(
  'a server that stays away for longer than max-reconnects ends it; what waits is put by the next start',
  async (scene) => {
    const replication = await scene.replicate({ nats: { ...NATS, maxReconnects: 40 } });
    await replication.ready();
    await scene.server.kill();
    const seqs = await commitIntoSpool(scene, replication, 2);
    await assert.rejects(replication.result(), /They wait in .*given up after max-reconnects tries/s);
    await scene.server.restart();
    const next = await scene.replicate();
    await next.ready();
    await next.stop();
    await assertMoments(scene, seqs);
  },
);
