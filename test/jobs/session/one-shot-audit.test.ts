/** Jobs that do not stay see what the replica has lost before they go on with it: nobody asks it later. */

import assert from 'node:assert/strict';
import { unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { connect, type NatsConnection } from 'nats';
import { backup } from '../../../lib/jobs/backup.js';
import { replicate } from '../../../lib/jobs/replicate.js';
import { restore } from '../../../lib/jobs/restore.js';
import { openFileReplica } from '../../../lib/replica/file.js';
import type { Replica } from '../../../lib/replica/replica.js';
import { Application } from '../../support/application.js';
import { makeBucket, openBucketReplica } from '../../support/nats-replica.js';
import { startNatsServer } from '../../support/nats-server.js';
import { firstDifference } from '../../support/oracle/check.js';

const JOBS: Record<string, (database: string, replica: Replica) => Promise<{ txid: bigint }>> = {
  'a backup': (database, replica) => backup({ database, replica }),
  'a replication that is run once': (database, replica) => replicate({ database, replica, once: true }),
};

/** Three TXIDs, the second of them lost, and one more change. */
async function loseSecond(app: Application, replica: Replica, lose: () => Promise<void>): Promise<void> {
  await app.open({ pragmas: ['journal_mode = wal'] });
  await app.run('CREATE TABLE t (n)');
  for (let n = 1; n <= 3; n++) {
    await app.run(`INSERT INTO t VALUES (${n})`);
    await backup({ database: app.path, replica });
  }
  await lose();
  await app.run('INSERT INTO t VALUES (4)');
}

async function assertWhole(app: Application, replica: Replica): Promise<void> {
  const output = join(app.folder, 'restored.db');
  await restore({ replica, output });
  await app.run('PRAGMA wal_checkpoint(TRUNCATE)');
  assert.equal(await firstDifference(app.path, output), undefined);
}

for (const [who, run] of Object.entries(JOBS)) {
  test(`${who} puts the whole database where a file of the chain has vanished from a folder`, async (t) => {
    const app = await Application.inScratchFolder(t);
    if (app === undefined) return;
    const folder = join(app.folder, 'replica');
    const replica = await openFileReplica(folder);
    const second = join(folder, 'ltx', '0', '0000000000000002-0000000000000002.ltx');
    await loseSecond(app, replica, () => unlink(second));
    assert.equal((await run(app.path, replica)).txid, 4n);
    await assertWhole(app, replica);
  });

  for (const [what, subjectOf] of Object.entries({
    meta: async () => `$O.backups.M.${btoa('ltx/0/0000000000000002-0000000000000002.ltx')}`,
    chunk: async (connection: NatsConnection) => {
      const store = await connection.jetstream().views.os('backups');
      const { nuid } = (await store.info('ltx/0/0000000000000002-0000000000000002.ltx'))!;
      return `$O.backups.C.${nuid}`;
    },
  })) {
    test(`${who} puts the whole database where a bucket has lost the ${what} of a file`, async (t) => {
      const server = await startNatsServer(t);
      const app = server && (await Application.inScratchFolder(t));
      if (server === undefined || app === undefined) return;
      await makeBucket(server);
      const connection = await connect({ servers: server.url });
      t.after(() => connection.close());
      const replica = await openBucketReplica(t, server);
      await loseSecond(app, replica, async () => {
        const manager = await connection.jetstreamManager();
        await manager.streams.purge('OBJ_backups', { filter: await subjectOf(connection) });
      });
      assert.equal((await run(app.path, replica)).txid, 4n);
      await assertWhole(app, replica);
    });
  }
}
