/** The first file of a replica, which is written while the database is read. */

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { backup } from '../../../lib/jobs/backup.js';
import { restore } from '../../../lib/jobs/restore.js';
import type { ByteSource } from '../../../lib/replica/replica.js';
import { Application } from '../../support/application.js';
import { inEveryHome, replicaWith } from '../../support/homes.js';

inEveryHome('no moment before its last commit leads to it', async (open, t) => {
  const app = await Application.inScratchFolder(t);
  if (app === undefined) return;
  await app.open({ pragmas: ['journal_mode = wal'] });
  await app.run('CREATE TABLE t (n)');
  const replica = await open();
  let committedMs = 0;
  const slow = replicaWith(replica, {
    write: (target, content, signal) => {
      const source: ByteSource = async function* () {
        for await (const block of content()) {
          if (committedMs === 0) {
            await sleep(20);
            await app.run('INSERT INTO t VALUES (1)');
            committedMs = Date.now();
          }
          yield block;
        }
      };
      return replica.write(target, source, signal);
    },
  });
  await backup({ database: app.path, replica: slow });
  const [first] = await replica.list(0);
  assert.ok(first.timestampMs >= committedMs);
  const output = join(app.folder, 'restored.db');
  await assert.rejects(restore({ replica, output, timestampMs: committedMs - 1 }), {
    code: 'NOT_FOUND',
    message: /nothing in the replica is as old as/,
  });
  const restored = await restore({ replica, output, timestampMs: first.timestampMs });
  assert.ok(restored.kind === 'restored');
  assert.equal(restored.txid, 1n);
});
