/** Servers that lose what they acknowledged, under a database that is written all the while: found, told, healed. */

import assert from 'node:assert/strict';
import { open, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { connect } from 'nats';
import { restore } from '../../../lib/jobs/restore.js';
import { contentOffset, readRecordHeader, recordEnd } from '../../../lib/jobs/session/spool-record.js';
import type { LtxFileInfo } from '../../../lib/replica/replica.js';
import { CaptureStage } from '../../support/capture-stage.js';
import { makeBucket, openBucketReplica } from '../../support/nats-replica.js';
import { type NatsServer, startNatsServer } from '../../support/nats-server.js';
import { copyStore, flipBitBehind, truncateBlock } from '../../support/nats-store.js';
import { firstDifference } from '../../support/oracle/check.js';
import type { OracleWriter } from '../../support/oracle/writer.js';
import { contentOf } from '../../support/replica.js';
import type { Replication, ReplicationOptions } from '../../support/replication.js';

const WORK = { autocheckpoint: 200, rate: 100, seed: 11, rows: [50, 100] } as const;

/** A loss that is not found is waited for; not for ever. */
const LIMIT = { timeout: 120_000 };

class LossStage {
  replication!: Replication;
  private constructor(
    readonly t: TestContext,
    readonly stage: CaptureStage,
    readonly server: NatsServer,
    readonly writer: OracleWriter,
  ) {}

  static async open(
    t: TestContext,
    options: Partial<ReplicationOptions> = {},
  ): Promise<LossStage | undefined> {
    const stage = await CaptureStage.open(t);
    const server = stage && (await startNatsServer(t));
    if (stage === undefined || server === undefined) return undefined;
    await makeBucket(server);
    const found = new LossStage(t, stage, server, await stage.writer(WORK));
    await found.replicate(options);
    await found.puts(10);
    return found;
  }

  async replicate(options: Partial<ReplicationOptions> = {}): Promise<void> {
    this.replication = await this.stage.replicate({ replica: `${this.server.url}/backups`, ...options });
    await this.replication.ready();
  }

  /** The connections to the server stand all the while. */
  async remakeBucket(): Promise<void> {
    const connection = await connect({ servers: this.server.url });
    await (await connection.jetstreamManager()).streams.delete('OBJ_backups');
    await connection.close();
    await makeBucket(this.server);
  }

  async puts(count: number): Promise<void> {
    for (let i = 0; i < count; i++) await this.replication.nextPut();
  }

  /** Kills the server, does that to its store, starts it again. */
  async afterKill(damage: () => Promise<unknown>): Promise<void> {
    await this.server.kill();
    await damage();
    await this.server.restart();
  }

  /** The newest state restores to what the writer left, no TXID was given twice, and all of it is in the bucket. */
  async assertWhole(): Promise<void> {
    await this.writer.stop();
    await this.replication.stop();
    const { t, server, stage } = this;
    const replica = await openBucketReplica(t, server);
    const output = join(stage.folder, 'restored.db');
    await restore({ replica, output });
    assert.equal(await firstDifference(stage.database, output), undefined);
    const { flaws } = await replica.audit!();
    assert.deepEqual(flaws, []);
    const given = this.replication.events.flatMap((event) =>
      event.type === 'put' ? [BigInt(event.file.maxTxid)] : [],
    );
    for (const [i, txid] of given.entries()) {
      if (i > 0) assert.equal(txid, given[i - 1] + 1n, 'each TXID is given once');
    }
  }

  lost(): Promise<void> {
    return this.replication.waitFor(({ type }) => type === 'lost');
  }

  healed(): Promise<void> {
    return this.replication.waitFor(({ type }) => type === 'healed');
  }
}

test(
  'a store that is rolled back while the database is written is found and made whole',
  LIMIT,
  async (t) => {
    const stage = await LossStage.open(t);
    if (stage === undefined) return;
    let rollBack: () => Promise<void> = async () => {};
    await stage.afterKill(async () => {
      rollBack = await copyStore(stage.server);
    });
    await stage.puts(10);
    await stage.afterKill(rollBack);
    await stage.lost();
    await stage.healed();
    await stage.assertWhole();
    const files = await (await openBucketReplica(t, stage.server)).list(0);
    const txids = files.map(({ maxTxid }) => maxTxid);
    const expected = txids.map((_, i) => BigInt(i + 1));
    assert.deepEqual(txids, expected, 'what the spool had is under its own names again');
  },
);

test('a truncated block is found and made whole', LIMIT, async (t) => {
  const stage = await LossStage.open(t);
  if (stage === undefined) return;
  await stage.afterKill(() => truncateBlock(stage.server, 0.5));
  await stage.lost();
  await stage.healed();
  await stage.assertWhole();
});

test('a flipped bit that costs the server the rest of a block is found and made whole', LIMIT, async (t) => {
  const stage = await LossStage.open(t);
  if (stage === undefined) return;
  await stage.afterKill(() => flipBitBehind(stage.server, '"name":"ltx/0/0000000000000004'));
  await stage.lost();
  await stage.healed();
  await stage.assertWhole();
});

test('a bucket that is deleted and made anew is found and made whole', LIMIT, async (t) => {
  const stage = await LossStage.open(t);
  if (stage === undefined) return;
  await stage.remakeBucket();
  // A sequence that was given before is what tells.
  await stage.lost();
  await stage.healed();
  await stage.assertWhole();
});

test(
  'a bucket that is deleted and made anew under an idle database is made whole before any commit',
  LIMIT,
  async (t) => {
    const stage = await LossStage.open(t);
    if (stage === undefined) return;
    await stage.writer.pause();
    await stage.remakeBucket();
    // Long before the next look by the clock: the server's silence is what tells.
    await stage.lost();
    await stage.healed();
    await stage.assertWhole();
  },
);

for (const hasSpool of [true, false]) {
  test(
    `a replicator killed between loss and healing heals at its next start, ${hasSpool ? 'from its spool' : 'with the whole database'}`,
    LIMIT,
    async (t) => {
      const stage = await LossStage.open(t);
      if (stage === undefined) return;
      await stage.replication.kill();
      await stage.afterKill(() => truncateBlock(stage.server, 0.5));
      if (!hasSpool) await forgetSpool(stage.stage.folder);
      await stage.replicate();
      await stage.replication.waitFor(
        ({ type, message }) => type === 'healed' || /are put again/.test(message),
      );
      await stage.assertWhole();
    },
  );
}

test(
  'of a spool with one damaged file, what comes before it is put again after a store was rolled back',
  LIMIT,
  async (t) => {
    const stage = await LossStage.open(t);
    if (stage === undefined) return;
    let rollBack: () => Promise<void> = async () => {};
    await stage.afterKill(async () => {
      rollBack = await copyStore(stage.server);
    });
    const kept = BigInt((await lastPut(stage)) ?? 0);
    await stage.puts(10);
    // Killed, it leaves its spool.
    await stage.replication.kill();
    await stage.writer.pause();
    assert.ok(await damageSpooled(stage.stage.folder, kept + 5n));
    await stage.afterKill(rollBack);
    await stage.replicate();
    await stage.lost();
    await stage.healed();
    await stage.assertWhole();
    const files = await (await openBucketReplica(t, stage.server)).list(0);
    const txids = new Set(files.map(({ maxTxid }) => maxTxid));
    for (let txid = 1n; txid <= kept + 4n; txid++) assert.ok(txids.has(txid), `TXID ${txid}`);
    assert.ok(!txids.has(kept + 5n));
  },
);

for (const hasSpool of [true, false]) {
  const how = hasSpool ? 'is put again under its name' : 'is removed once nothing needs it';
  test(`an object whose chunks are lost ${how}`, LIMIT, async (t) => {
    const stage = await LossStage.open(t);
    if (stage === undefined) return;
    if (!hasSpool) await stage.replication.kill();
    const connection = await connect({ servers: stage.server.url });
    const fifth = (await (await openBucketReplica(t, stage.server)).list(0))[4];
    const filter = `$O.backups.C.${fifth.version?.split(':')[1]}`;
    await (await connection.jetstreamManager()).streams.purge('OBJ_backups', { filter });
    await connection.close();
    if (hasSpool) {
      await stage.afterKill(async () => {});
    } else {
      await forgetSpool(stage.stage.folder);
      await stage.replicate();
    }
    await stage.lost();
    await stage.healed();
    await stage.assertWhole();
    const left = await (await openBucketReplica(t, stage.server)).list(0);
    assert.equal(
      left.some(({ maxTxid, digest }) => maxTxid === 5n && digest === fifth.digest),
      hasSpool,
    );
  });
}

for (const hasSpool of [true, false]) {
  const how = hasSpool ? 'put again under its name' : 'gone around with the whole database';
  test(
    `a flipped bit that no count shows is found by the next merge, and the file ${how}`,
    LIMIT,
    async (t) => {
      const stage = await LossStage.open(t, { levels: { levelIntervalsMs: [2000] } });
      if (stage === undefined) return;
      const { server, replication } = stage;
      const bucket = await openBucketReplica(t, server, 'backups', { nats: { reconnectWaitMs: 20 } });
      let file: LtxFileInfo;
      for (;;) {
        await replication.next('merged');
        await replication.nextPut();
        file = (await bucket.list(0)).at(-1)!;
        // It is kept there a moment after it was put.
        while (!hasSpool && !(await damageSpooled(stage.stage.folder, file.maxTxid)))
          await replication.nextPut();
        // Stopped cleanly, a server believes what it has noted of its blocks.
        await server.stop();
        await flipBitBehind(server, `$O.backups.C.${file.version?.split(':')[1]}`);
        await server.restart();
        // It may have been merged just before.
        if ((await bucket.list(1)).at(-1)!.maxTxid < file.maxTxid) break;
      }
      await stage.lost();
      await stage.healed();
      await stage.assertWhole();
      const left = await bucket.list();
      for (const one of left) await contentOf(bucket, one);
      const isThere = left.some(({ level, maxTxid }) => level === 0 && maxTxid === file.maxTxid);
      assert.equal(isThere, hasSpool);
    },
  );
}

test(
  'a file that is lost once more after it was put again is told of and put again once more',
  LIMIT,
  async (t) => {
    const stage = await LossStage.open(t, { levels: { levelIntervalsMs: [300] } });
    if (stage === undefined) return;
    const { server, replication } = stage;
    const bucket = await openBucketReplica(t, server, 'backups', { nats: { reconnectWaitMs: 20 } });
    // The newest state does not need it any more.
    while (((await bucket.list(1)).at(-1)?.maxTxid ?? 0n) < 5n) await replication.next('merged');
    const fifth = async (): Promise<LtxFileInfo> =>
      (await bucket.list(0)).find(({ maxTxid }) => maxTxid === 5n)!;
    for (let round = 0; round < 2; round++) {
      const filter = `$O.backups.C.${(await fifth()).version?.split(':')[1]}`;
      const connection = await connect({ servers: server.url });
      await (await connection.jetstreamManager()).streams.purge('OBJ_backups', { filter });
      await connection.close();
      await assert.rejects(contentOf(bucket, await fifth()), { code: 'FORMAT' });
      const [lost, healed] = [replication.next('lost'), replication.next('healed')];
      await stage.afterKill(async () => {});
      await Promise.all([lost, healed]);
      await contentOf(bucket, await fifth());
    }
    await stage.assertWhole();
  },
);

/** The newest TXID that stands in the bucket. */
async function lastPut({ t, server }: LossStage): Promise<bigint | undefined> {
  return (await (await openBucketReplica(t, server)).list(0)).at(-1)?.maxTxid;
}

/** Flips a bit in the file of that TXID. False if the spool has none. */
async function damageSpooled(folder: string, txid: bigint): Promise<boolean> {
  for (const name of await readdir(folder, { recursive: true })) {
    if (!name.endsWith('.spool')) continue;
    const segment = await open(join(folder, name), 'r+');
    try {
      const { size } = await segment.stat();
      let record = await readRecordHeader(segment, 0, size);
      while (record !== undefined && record.txid !== txid) {
        record = await readRecordHeader(segment, recordEnd(record), size);
      }
      if (record === undefined) continue;
      const at = contentOffset(record) + 100;
      const byte = Buffer.alloc(1);
      await segment.read(byte, 0, 1, at);
      byte[0] ^= 1;
      await segment.write(byte, 0, 1, at);
      return true;
    } finally {
      await segment.close();
    }
  }
  return false;
}

async function forgetSpool(folder: string): Promise<void> {
  for (const name of await readdir(folder, { recursive: true })) {
    if (name.endsWith('.spool')) await rm(join(folder, name));
  }
}
