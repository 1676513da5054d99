/** Files that a writer takes back, because another one stands where they would go on from. */

import assert from 'node:assert/strict';
import { rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { connect } from 'nats';
import { openFileReplica } from '../../lib/replica/file.js';
import { ltxPath } from '../../lib/replica/names.js';
import type { LtxFileInfo, Replica } from '../../lib/replica/replica.js';
import { makeBucket, openBucketReplica } from '../support/nats-replica.js';
import { startNatsServer } from '../support/nats-server.js';
import { bytes, contentOf, target } from '../support/replica.js';
import { scratchFolder } from '../support/scratch.js';

interface Home {
  readonly replica: Replica;
  /** Puts another file over one, as Litestream does. */
  overwrite(file: LtxFileInfo): Promise<void>;
}

const HOMES: Record<string, (t: TestContext) => Promise<Home | undefined>> = {
  'a folder': async (t) => {
    const folder = await scratchFolder(t);
    const overwrite = async (file: LtxFileInfo) => {
      await writeFile(join(folder, 'other'), 'other');
      await rename(join(folder, 'other'), join(folder, ltxPath(file)));
    };
    return { replica: await openFileReplica(folder), overwrite };
  },
  NATS: async (t) => {
    const server = await startNatsServer(t);
    if (server === undefined) return undefined;
    await makeBucket(server);
    const connection = await connect({ servers: server.url });
    t.after(() => connection.close());
    const store = await connection.jetstream().views.os('backups');
    const overwrite = async (file: LtxFileInfo) => {
      await store.putBlob({ name: ltxPath(file) }, Buffer.from('other'));
    };
    return { replica: await openBucketReplica(t, server), overwrite };
  },
};

for (const [home, open] of Object.entries(HOMES)) {
  test(`what is taken back from ${home} leaves its name free, and what another writer put there stays`, async (t) => {
    const opened = await open(t);
    if (opened === undefined) return;
    const { replica, overwrite } = opened;
    const files: LtxFileInfo[] = [];
    for (const txid of [1n, 2n, 3n]) files.push(await replica.write(target(0, txid), bytes(`ours ${txid}`)));
    await overwrite(files[1]);
    const listed = await replica.list(0);
    assert.deepEqual(
      listed.map((file) => replica.isOwn(file)),
      [true, false, true],
    );

    assert.equal(await replica.takeBack([files[2], files[1]]), 1);
    assert.deepEqual(
      (await replica.list(0)).map(({ maxTxid }) => maxTxid),
      [1n, 2n],
    );
    assert.equal(await contentOf(replica, (await replica.list(0))[1]), 'other');
    // A name that was removed is taken for good, one that was taken back is not.
    const again = await replica.write(target(0, 3n), bytes('again'));
    assert.equal(await contentOf(replica, again), 'again');
  });
}

test('what another writer of the same name puts is not ours: in containers host and process are often called alike', async (t) => {
  const server = await startNatsServer(t);
  if (server === undefined) return;
  await makeBucket(server);
  const [one, two] = [await openBucketReplica(t, server), await openBucketReplica(t, server)];
  const theirs = await two.write(target(0, 1n), bytes('theirs'));
  const ours = await one.write(target(0, 2n), bytes('ours'));
  assert.equal(ours.writer, theirs.writer);
  assert.deepEqual([one.isOwn(theirs), one.isOwn(ours)], [false, true]);
  assert.deepEqual([two.isOwn(theirs), two.isOwn(ours)], [true, false]);
});
