/** A replicator that merges, makes snapshots and removes files every second, as others do in hours. */

import assert from 'node:assert/strict';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { restore } from '../../lib/jobs/restore.js';
import type { UpkeepSettings } from '../../lib/jobs/tidy/tidy.js';
import { formatTxid } from '../../lib/ltx/header.js';
import { openReplica } from '../../lib/replica/open.js';
import { LEASE_NAME } from '../../lib/replica/replica.js';
import { CaptureStage, LONG } from '../support/capture-stage.js';
import { makeBucket } from '../support/nats-replica.js';
import { startNatsServer } from '../support/nats-server.js';
import { firstDifference, OracleChecker } from '../support/oracle/check.js';
import { proveOffer } from '../support/oracle/offered-states.js';
import { randomSource } from '../support/random.js';

const SETTINGS: UpkeepSettings = {
  levelIntervalsMs: [1000, 3000, 9000],
  snapshotIntervalMs: 2500,
  snapshotRetentionMs: 6000,
  level0RetentionMs: 2000,
};
/** How long the replicator is looked at while it works. */
const SECONDS = LONG ? 180 : 6;
const KILLS = LONG ? 12 : 2;

async function folderOf(_t: TestContext, stage: CaptureStage): Promise<string> {
  return stage.replica;
}

async function bucketOf(t: TestContext): Promise<string | undefined> {
  const server = await startNatsServer(t);
  if (server === undefined) return undefined;
  await makeBucket(server);
  return `${server.url}/backups/a`;
}

for (const [home, place] of Object.entries({ folder: folderOf, bucket: bucketOf })) {
  test(`${home}: while files are merged and removed, and the replicator is killed, each state on offer is a committed one, the right one for its time`, async (t) => {
    const stage = await CaptureStage.open(t);
    const url = stage && (await place(t, stage));
    if (stage === undefined || url === undefined) return;
    const random = randomSource(t);
    const writer = await stage.writer({
      rows: [300, 1500],
      rate: 80,
      autocheckpoint: 60,
      paused: true,
      vacuumEvery: 400,
    });
    await writer.command('step 50');
    const events = new Map<string, number>();
    const start = () => stage.replicate({ replica: url, levels: SETTINGS });
    let replication = await start();
    const count = (): void => {
      for (const { type } of replication.events) events.set(type, (events.get(type) ?? 0) + 1);
    };
    await replication.firstPut();
    await writer.resume();

    const replica = await openReplica(url);
    t.after(() => replica.close());
    const checker = new OracleChecker();
    t.after(() => checker.close());
    const offer = { replica, checker, folder: stage.folder, ledger: () => stage.ledger(), random };
    const [began, total] = [Date.now(), { proven: 0, refused: 0, vanished: 0 }];
    let mostFiles = 0;
    const proveNow = async (moving: boolean, limit: number): Promise<void> => {
      const { proven, refused, vanished } = await proveOffer({ ...offer, moving, limit });
      total.proven += proven;
      total.refused += refused;
      total.vanished += vanished;
      mostFiles = Math.max(mostFiles, (await replica.list()).length);
    };
    for (let kills = 0; Date.now() - began < SECONDS * 1000; ) {
      await proveNow(true, 6);
      if ((kills + 1) * SECONDS * 1000 >= (Date.now() - began) * (KILLS + 1)) continue;
      kills++;
      await replication.kill();
      count();
      // As if the life of the lease it held were over.
      await replica.removeExtra(LEASE_NAME);
      await proveNow(false, 3);
      replication = await start();
      await replication.ready();
    }
    await replication.waitFor((event) => event.type === 'merged' && event.file.level === 2);
    for (const type of ['snapshot', 'removed']) await replication.waitFor((event) => event.type === type);
    await writer.stop();
    await replication.stop();
    count();
    await proveNow(false, LONG ? 200 : 12);
    const output = join(stage.folder, 'newest.db');
    await restore({ replica, output, force: true });
    assert.equal(await firstDifference(stage.database, output), undefined);

    const snapshots = (await replica.list(9)).map(({ maxTxid }) => formatTxid(maxTxid));
    if (home === 'folder') {
      const names = await readdir(join(stage.replica, 'jetlite', 'page-sums'));
      const orphans = names.filter((name) => !snapshots.some((txid) => name.startsWith(`9-${txid}`)));
      assert.deepEqual(orphans, [], 'page sums go with their snapshots');
    }
    const levels = new Set((await replica.list()).map(({ level }) => level));
    t.diagnostic(`${JSON.stringify(total)}, ${mostFiles} files at the most, ${JSON.stringify([...events])}`);
    assert.ok(levels.has(1) && levels.has(2) && levels.has(9), `levels ${[...levels]}`);
    for (const type of ['merged', 'snapshot', 'removed']) assert.ok(events.has(type), `nothing was ${type}`);
    for (const type of ['damaged', 'hole', 'unremoved', 'damage', 'stuck'])
      assert.ok(!events.has(type), type);
  });
}
