/** What a replicator does whose replica another program writes over, as Litestream would. */

import assert from 'node:assert/strict';
import { rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { connect } from 'nats';
import { ltxPath } from '../../../lib/replica/names.js';
import { openReplica } from '../../../lib/replica/open.js';
import type { LtxFileInfo } from '../../../lib/replica/replica.js';
import { CaptureStage } from '../../support/capture-stage.js';
import { makeBucket } from '../../support/nats-replica.js';
import { startNatsServer } from '../../support/nats-server.js';

interface Home {
  readonly url: string;
  overwrite(file: LtxFileInfo): Promise<void>;
}

const HOMES: Record<string, (t: TestContext, stage: CaptureStage) => Promise<Home | undefined>> = {
  'a folder': async (_t, { replica: url, folder }) => ({
    url,
    overwrite: async (file) => {
      await writeFile(join(folder, 'other'), 'other');
      await rename(join(folder, 'other'), join(url, ltxPath(file)));
    },
  }),
  NATS: async (t) => {
    const server = await startNatsServer(t);
    if (server === undefined) return undefined;
    await makeBucket(server);
    const connection = await connect({ servers: server.url });
    t.after(() => connection.close());
    const store = await connection.jetstream().views.os('backups');
    return {
      url: `${server.url}/backups`,
      overwrite: async (file) => {
        await store.putBlob({ name: ltxPath(file) }, Buffer.from('other'));
      },
    };
  },
};

for (const [home, open] of Object.entries(HOMES)) {
  test(`in ${home}, what was put above another program’s file is taken back before the replicator ends`, async (t) => {
    const stage = await CaptureStage.open(t);
    const opened = stage && (await open(t, stage));
    if (stage === undefined || opened === undefined) return;
    const { url, overwrite } = opened;
    const writer = await stage.writer({ paused: true });
    await writer.command('step 3');
    const replication = await stage.replicate({ replica: url });
    await replication.ready();
    for (let i = 0; i < 4; i++) {
      const put = replication.nextPut();
      await writer.command('step 1');
      await put;
    }
    const replica = await openReplica(url, { env: {} });
    t.after(() => replica.close());
    const before = await replica.list(0);
    await overwrite(before[before.length - 3]);
    await assert.rejects(replication.result(), /"code":"CONFLICT".* writes to .* as well: it put ltx\/0\//);
    const after = await replica.list(0);
    assert.deepEqual(
      after.map(({ maxTxid }) => maxTxid),
      before.slice(0, -2).map(({ maxTxid }) => maxTxid),
    );
    const warnings = replication.events.filter(({ level }) => level === 'warn');
    assert.match(
      warnings.map(({ message }) => message).join(),
      /took back 2 files that stood above ltx\/0\//,
    );
  });
}
