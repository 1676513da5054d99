/** Jetlite and Litestream, the real program, taking one replica over from each other, back and forth. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { backup } from '../../lib/jobs/backup.js';
import { BothPrograms, type HomeName } from '../support/both-programs.js';
import type { Replication } from '../support/replication.js';

const HOMES: readonly HomeName[] = ['a folder', 'NATS'];

for (const home of HOMES) {
  test(`Litestream, Jetlite and Litestream again replicate to ${home} by turns, and every state restores by both`, async (t) => {
    const both = await BothPrograms.open(t, home);
    if (both === undefined) return;
    for (let round = 0; round < 2; round++) {
      const litestream = await both.startLitestream();
      await both.commitThroughLitestream(3);
      await litestream.stop();
      await both.prove();
      await both.commitThroughBackup(2);
      const jetlite = await both.stage.replicate({ replica: both.url });
      await jetlite.ready();
      for (let i = 0; i < 2; i++) {
        const put = jetlite.nextPut();
        await both.commit();
        await put;
      }
      await jetlite.stop();
      await both.prove();
    }
  });

  test(`what Litestream did not get to upload to ${home} goes before what Jetlite puts, and Litestream may come back`, async (t) => {
    const both = await BothPrograms.open(t, home);
    if (both === undefined) return;
    const killed = await both.startLitestream();
    await both.commitThroughLitestream(3);
    const end = await both.newestTxid();
    await both.killWithFilesKept(killed, 4);

    // Fewer than Litestream kept: it would trust its own files, and put them over ours.
    await both.commitThroughBackup(1);
    assert.equal(await both.newestTxid(), end + 5n);
    await both.prove();

    const back = await both.startLitestream();
    await both.commitThroughLitestream(2);
    await back.stop();
    await both.prove();
    await backup({ database: both.database, replica: both.replica });
    await both.prove();
  });
}

for (const home of HOMES) {
  test(`Jetlite stops when Litestream writes to the same replica in ${home}, says so, and leaves nothing between its files`, async (t) => {
    const both = await BothPrograms.open(t, home);
    if (both === undefined) return;
    const litestream = await both.startLitestream({ replica: { 'sync-interval': '1s' } });
    await both.commitThroughLitestream(2);
    const jetlite = await both.stage.replicate({ replica: both.url });
    await jetlite.ready();
    // Ours is there long before Litestream comes to it: Litestream will put its own over it.
    for (let i = 0; i < 4 && (await isRunning(jetlite)); i++) {
      await both.commit();
      await Promise.race([jetlite.nextPut(), jetlite.ended]).catch(() => {});
    }
    await assert.rejects(
      jetlite.result(),
      /"code":"CONFLICT".*Litestream writes to .* as well: it put ltx.0.*, a state of 20/,
    );
    await both.commitThroughLitestream(2);
    await litestream.stop();
    await both.prove();
    // With Litestream gone Jetlite goes on; no name is spoilt.
    await both.commitThroughBackup(3);
    await both.prove();
  });
}

async function isRunning(replication: Replication): Promise<boolean> {
  return (await Promise.race([replication.ended, Promise.resolve('running')])) === 'running';
}

test('what Jetlite spooled while the server was away does not come after what Litestream put meanwhile', async (t) => {
  const both = await BothPrograms.open(t, 'NATS');
  if (both === undefined) return;
  const killed = await both.stage.replicate({ replica: both.url });
  await killed.firstPut();
  await both.withReplicaAway(async () => {
    await both.commit(3);
    await killed.waitFor(({ type }) => type === 'spooled');
    await killed.kill();
  });
  const litestream = await both.startLitestream();
  await both.commitThroughLitestream(2);
  await litestream.stop();

  const jetlite = await both.stage.replicate({ replica: both.url });
  await jetlite.ready();
  const put = jetlite.nextPut();
  await both.commit();
  await put;
  await jetlite.stop();
  await both.prove();
});
