/** What removing and cut-off uploads leave in a bucket: what of it goes, and what must not. */

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createConnection, createServer, type Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { connect, type JetStreamManager, type NatsConnection } from 'nats';
import { type LevelSettings, tidy } from '../../lib/jobs/tidy/tidy.js';
import { openBucket } from '../../lib/replica/nats/bucket.js';
import { connectNats } from '../../lib/replica/nats/connect.js';
import { sweep as sweepBucket } from '../../lib/replica/nats/sweep.js';
import {
  LEASE_NAME,
  type LtxFileInfo,
  type Replica,
  type SweepOptions,
  type Swept,
} from '../../lib/replica/replica.js';
import { makeHistory, putLtx, random, timeOf } from '../support/ltx-history.js';
import { makeBucket, openBucketReplica } from '../support/nats-replica.js';
import { type NatsServer, startNatsServer } from '../support/nats-server.js';
import { flipBitBehind } from '../support/nats-store.js';
import { bytes, contentOf, sizedBytes, target } from '../support/replica.js';

const CHUNK = 512 * 1024;
const AT_ONCE: SweepOptions = { markAgeMs: 0, uploadAgeMs: 0 };

interface Stage {
  readonly server: NatsServer;
  readonly replica: Replica;
  readonly connection: NatsConnection;
  readonly manager: JetStreamManager;
}

async function openStage(t: TestContext, path = 'backups'): Promise<Stage | undefined> {
  const server = await startNatsServer(t);
  if (server === undefined) return undefined;
  await makeBucket(server);
  const connection = await connect({ servers: server.url, reconnectTimeWait: 20 });
  t.after(() => connection.close());
  const manager = await connection.jetstreamManager();
  const replica = await openBucketReplica(t, server, path, { nats: { reconnectWaitMs: 20 } });
  return { server, replica, connection, manager };
}

/** Under a lease of its own. */
async function sweep(replica: Replica, options: SweepOptions = AT_ONCE): Promise<Swept> {
  const lease = await replica.writeExtra(LEASE_NAME, Buffer.from('me'), 'nothing');
  try {
    return await replica.sweep!(lease, options);
  } finally {
    await replica.removeExtra(LEASE_NAME, lease);
  }
}

/** Without the chunk of the object that tells the time where the server does not (before 2.10). */
async function subjects({ manager }: Stage, kind: 'C' | 'M'): Promise<string[]> {
  const { state } = await manager.streams.info('OBJ_backups', { subjects_filter: '$O.backups.>' });
  const all = Object.keys(state.subjects ?? {});
  const clock = all.find((subject) => subject === `$O.backups.M.${btoa('jetlite/clock')}`);
  let nuid: string | undefined;
  if (clock !== undefined) {
    ({ nuid } = (await manager.streams.getMessage('OBJ_backups', { last_by_subj: clock })).json<{
      nuid: string;
    }>());
  }
  return all.filter((one) => one.startsWith(`$O.backups.${kind}.`) && one !== `$O.backups.C.${nuid}`);
}

/** An upload that stops behind its second chunk; `go` lets it end. Resolves when both are stored. */
async function beginUpload(stage: Stage, replica: Replica, txid: bigint) {
  let go = () => {};
  const stopped = new Promise<void>((resolve) => {
    go = resolve;
  });
  const before = (await subjects(stage, 'C')).length;
  const put = replica.write(target(1, txid), async function* () {
    yield new Uint8Array(3 * CHUNK).fill(Number(txid));
    await stopped;
    yield new Uint8Array(3 * CHUNK).fill(Number(txid));
  });
  while ((await subjects(stage, 'C')).length === before) await delay(10);
  return { put, go };
}

/** What is left where a process is killed in the middle of an upload: nobody tidies up behind it. */
async function killedUpload(stage: Stage, t: TestContext, txid: bigint): Promise<void> {
  const killed = await openBucketReplica(t, stage.server);
  const { put, go } = await beginUpload(stage, killed, txid);
  const failed = assert.rejects(put);
  await killed.close();
  go();
  await failed;
}

test('chunks of a killed upload go once they are old; those of running ones and other programs’ objects stay', async (t) => {
  const stage = await openStage(t);
  if (stage === undefined) return;
  const { connection, manager, replica } = stage;
  const file = await replica.write(target(1, 1n), bytes('a file'));
  const store = await connection.jetstream().views.os('backups');
  await store.putBlob({ name: 'theirs' }, Buffer.alloc(300_000, 1));
  await store.link('a link', (await store.info('theirs'))!);
  await store.putBlob({ name: 'renamed' }, Buffer.alloc(10, 2));
  await store.update('renamed', { name: 'under a new name' });
  await store.putBlob({ name: 'not now' }, Buffer.alloc(10, 3));
  await store.delete('not now');
  const theirs = (await subjects(stage, 'C')).length;
  await killedUpload(stage, t, 2n);
  const running = await beginUpload(stage, replica, 3n);
  const theirChunk = '$O.backups.C.SLOWUPLOAD';
  await connection.jetstream().publish(theirChunk, Buffer.alloc(10));
  assert.deepEqual(await sweep(replica, {}), { marks: 0, uploads: 0, isDone: true }, 'all of it is young');

  // The newest chunk decides.
  await delay(3000);
  await connection.jetstream().publish(theirChunk, Buffer.alloc(10));
  const { uploads } = await sweep(replica, { uploadAgeMs: 2000 });
  assert.equal(uploads, 1);
  assert.equal((await subjects(stage, 'C')).length, theirs + 2);
  running.go();
  const large = await running.put;
  assert.equal((await contentOf(replica, large)).length, 6 * CHUNK);
  assert.equal(await contentOf(replica, file), 'a file');
  assert.equal((await store.getBlob('theirs'))?.length, 300_000);
  assert.equal((await store.getBlob('a link'))?.length, 300_000);
  assert.equal((await store.getBlob('under a new name'))?.length, 10);
  assert.ok((await store.info('not now'))?.deleted, 'a mark of another program stays');

  assert.equal((await sweep(replica)).uploads, 1);
  const { state } = await manager.streams.info('OBJ_backups', { subjects_filter: theirChunk });
  assert.deepEqual(state.subjects ?? {}, {});
});

test('an upload that slept so long that its chunks were swept is put whole all the same', async (t) => {
  const stage = await openStage(t);
  if (stage === undefined) return;
  const { replica, manager } = stage;
  let wakes = 0;
  const file = await replica.write(target(1, 1n), async function* () {
    yield new Uint8Array(3 * CHUNK).fill(1);
    if (wakes++ === 0) {
      while ((await subjects(stage, 'C')).length === 0) await delay(10);
      const [slept] = await subjects(stage, 'C');
      await manager.streams.purge('OBJ_backups', { filter: slept });
      t.mock.timers.enable({ apis: ['Date'], now: Date.now() + 90_000_000 });
    }
    yield new Uint8Array(3 * CHUNK).fill(2);
  });
  t.mock.timers.reset();
  assert.equal(wakes, 2);
  assert.equal((await contentOf(replica, file)).length, 6 * CHUNK);
  assert.deepEqual((await replica.audit!()).flaws, []);
  assert.equal((await subjects(stage, 'C')).length, 1);
});

test('as long as one meta cannot be understood no chunk is taken', async (t) => {
  const stage = await openStage(t);
  if (stage === undefined) return;
  const { replica, manager, connection } = stage;
  await replica.write(target(0, 1n), bytes('a file'));
  await killedUpload(stage, t, 2n);
  for (const text of ['{"name": "cut o', '[]', 'null', '{"name":"x","nuid":7}']) {
    await connection.jetstream().publish('$O.backups.M.eA==', text);
    const { uploads, obstacle } = await sweep(replica);
    assert.equal(uploads, 0);
    assert.match(`${obstacle}`, /\$O\.backups\.M\.eA==/, text);
    await manager.streams.purge('OBJ_backups', { filter: '$O.backups.M.eA==' });
  }
  assert.equal((await sweep(replica)).uploads, 1);
  assert.equal((await subjects(stage, 'C')).length, 1);
});

test('as long as the server cannot read one of its metas no chunk is taken', async (t) => {
  const stage = await openStage(t);
  if (stage === undefined) return;
  const { replica, server } = stage;
  for (const txid of [1n, 2n, 3n]) await replica.write(target(0, txid), bytes(`file ${txid}`));
  await killedUpload(stage, t, 4n);
  const before = await subjects(stage, 'C');
  await server.stop();
  await flipBitBehind(server, '"name":"ltx/0/0000000000000002');
  await server.restart();
  const { uploads, obstacle } = await sweep(replica);
  assert.equal(uploads, 0);
  assert.notEqual(obstacle, undefined);
  assert.deepEqual(await subjects(stage, 'C'), before);
});

test('an upload that gets its meta while the sweep is at it keeps its chunks', async (t) => {
  const stage = await openStage(t);
  if (stage === undefined) return;
  const { server, connection, manager, replica } = stage;
  const store = await connection.jetstream().views.os('backups');
  await store.putBlob({ name: 'late' }, Buffer.alloc(10));
  const chunks = await subjects(stage, 'C');
  const [subject] = await subjects(stage, 'M');
  const { data } = await manager.streams.getMessage('OBJ_backups', { last_by_subj: subject });
  await manager.streams.purge('OBJ_backups', { filter: subject });
  const link = await connectNats({ hosts: [`127.0.0.1:${server.port}`], tls: false }, {}, {});
  t.after(() => link.close());
  const bucket = await openBucket(link, 'backups');
  let looks = 0;
  const swept = await sweepBucket(
    {
      bucket,
      prefix: '',
      nowMs: await replica.clock(),
      // Asked when a nuid was found that nothing names, just before it goes.
      expectLease: async () => {
        if (looks++ === 0) await connection.jetstream().publish(subject, data);
      },
    },
    AT_ONCE,
  );
  assert.equal(looks, 1);
  assert.equal(swept.uploads, 0);
  assert.deepEqual(await subjects(stage, 'C'), chunks);
  assert.equal((await store.getBlob('late'))?.length, 10);
});

test('chunks stay where they come from another bucket, whose metas may be on the way', async (t) => {
  const stage = await openStage(t);
  if (stage === undefined) return;
  const { server, manager, connection } = stage;
  await manager.streams.add({
    name: 'OBJ_copy',
    subjects: ['$O.copy.C.>', '$O.copy.M.>'],
    allow_rollup_hdrs: true,
    sources: [{ name: 'OBJ_backups' }],
  });
  const copy = await openBucketReplica(t, server, 'copy');
  await connection.jetstream().publish('$O.copy.C.ALONE', Buffer.alloc(10));
  assert.equal((await sweep(copy)).uploads, 0);
});

const SETTINGS: LevelSettings = {
  levelIntervalsMs: [5000, 20_000],
  snapshotIntervalMs: 40_000,
  snapshotRetentionMs: 60_000,
  level0RetentionMs: 10_000,
};

test('through many rounds of retention the marks do not grow, and other prefixes keep theirs', async (t) => {
  const stage = await openStage(t, 'backups/p');
  if (stage === undefined) return;
  const { replica, server } = stage;
  const elsewhere = await openBucketReplica(t, server, 'backups/q');
  await elsewhere.remove([await elsewhere.write(target(0, 1n), bytes('one'))]);
  const length = process.env.JETLITE_LONG === '1' ? 1200 : 160;
  const history = makeHistory(length, 512, 8, random(5));
  let removed = 0;
  for (let txid = 1; txid <= length; txid++) {
    await putLtx(replica, history, 0, txid, txid);
    if (txid % 20 !== 0) continue;
    const nowMs = timeOf(txid);
    const result = await tidy(replica, { settings: SETTINGS, nowMs, sweep: AT_ONCE });
    assert.ok(result.kind === 'done' && result.stuck.length === 0);
    removed += result.removed.length;
    assert.ok(result.swept!.marks >= result.removed.length, `round at ${txid}`);
    const files = await replica.list();
    const snapshots = files.filter(({ level }) => level === 9).length;
    // Beside the files: the page sums of snapshots, lease and sign of life, and the mark elsewhere.
    const standing = files.length + 2 * snapshots + 3;
    assert.ok((await subjects(stage, 'M')).length <= standing);
  }
  assert.ok(removed > length / 2, `${removed} removed`);
  await assert.rejects(elsewhere.write(target(0, 1n), bytes('two')), {
    code: 'CONFLICT',
    message: /was removed/,
  });
  const newest = (await replica.list(0)).at(-1)!;
  await replica.remove([newest]);
  assert.equal((await sweep(replica)).marks, 0, 'above all files of level 0 a name stays taken');
  assert.deepEqual((await replica.audit!()).flaws, []);
});

test('a sweep at the root of a bucket leaves alone what belongs to a replica under jetlite, or below it', async (t) => {
  const stage = await openStage(t);
  if (stage === undefined) return;
  const { replica, server } = stage;
  for (const prefix of ['jetlite', 'jetlite/page-sums', 'jetlite/jetlite']) {
    const other = await openBucketReplica(t, server, `backups/${prefix}`);
    await other.remove([await other.write(target(0, 1n), bytes('one'))]);
    await other.writeExtra('page-sums/9-1', Buffer.from('sums'));
    await other.removeExtra('page-sums/9-1');
  }
  const before = await subjects(stage, 'M');
  await replica.writeExtra('page-sums/9-1', Buffer.from('sums'));
  await replica.removeExtra('page-sums/9-1');
  assert.equal((await sweep(replica)).marks, 1, 'that of its own companion');
  const lease = `$O.backups.M.${btoa('jetlite/lease')}`;
  assert.deepEqual((await subjects(stage, 'M')).filter((one) => one !== lease).sort(), before.sort());
  const other = await openBucketReplica(t, server, 'backups/jetlite');
  await assert.rejects(other.write(target(0, 1n), bytes('two')), {
    code: 'CONFLICT',
    message: /was removed/,
  });
});

/** A way to the server that can be cut, and told to take nobody for a while. */
async function cuttableWay(t: TestContext, server: NatsServer) {
  const sockets = new Set<Socket>();
  let open = true;
  const listener = createServer((near) => {
    if (!open) {
      near.destroy();
      return;
    }
    const far = createConnection(server.port, '127.0.0.1');
    for (const [one, other] of [[near, far] as const, [far, near] as const]) {
      sockets.add(one);
      one.on('error', () => {});
      one.on('close', () => other.destroy());
      one.pipe(other);
    }
  });
  listener.listen(0, '127.0.0.1');
  await once(listener, 'listening');
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    listener.close();
  });
  return {
    port: (listener.address() as { port: number }).port,
    cut: () => {
      open = false;
      for (const socket of sockets) socket.destroy();
    },
    mend: () => {
      open = true;
    },
  };
}

test('a writer that was cut off in the middle of a put is refused, also where the marks of what came after are gone', async (t) => {
  const stage = await openStage(t);
  if (stage === undefined) return;
  const { server, replica } = stage;
  const way = await cuttableWay(t, server);
  const cutOff = await openBucketReplica(t, { ...server, url: `nats://127.0.0.1:${way.port}` }, 'backups', {
    nats: { reconnectWaitMs: 20 },
  });
  await cutOff.write(target(0, 1n), bytes('one'));
  assert.equal((await cutOff.list()).length, 1);
  let asked = () => {};
  const reached = new Promise<void>((resolve) => {
    asked = resolve;
  });
  let goOn = () => {};
  const late = new Promise<void>((resolve) => {
    goOn = resolve;
  });
  const outcome = assert.rejects(
    cutOff.write(target(0, 2n), async function* () {
      asked();
      await late;
      yield Buffer.from('late');
    }),
    { code: 'CONFLICT', message: /0000000000000006\.ltx .* was put by .*, above/ },
  );
  await reached;
  way.cut();
  for (const txid of [2n, 3n, 4n, 5n, 6n]) await replica.write(target(0, txid), bytes(`${txid}`));
  await replica.remove((await replica.list(0)).filter(({ maxTxid }) => maxTxid < 6n));
  assert.equal((await sweep(replica)).marks, 5);
  goOn();
  await delay(200);
  way.mend();
  await outcome;
  assert.deepEqual(
    (await replica.list()).map(({ maxTxid }) => maxTxid),
    [6n],
  );
  assert.equal((await subjects(stage, 'C')).length, 1);
});

test('a removed file whose mark was swept long after it was last seen is not taken for lost', async (t) => {
  const stage = await openStage(t);
  if (stage === undefined) return;
  const { replica } = stage;
  const files: LtxFileInfo[] = [];
  for (const txid of [1n, 2n, 3n, 4n])
    files.push(await replica.write(target(0, txid), sizedBytes(`${txid}`)));
  await replica.write(target(1, 1n, 2n), sizedBytes('merged'));
  await replica.remove(files.slice(0, 3));
  const kinds = async (seenMs: number): Promise<string[]> =>
    (await replica.audit!(files, seenMs)).flaws.map(({ kind, file }) => `${kind} ${file.maxTxid}`);
  assert.deepEqual(await kinds(0), ['removed 1', 'removed 2', 'removed 3']);
  await sweep(replica);
  assert.deepEqual(await kinds(Date.now()), ['missing 1', 'missing 2', 'missing 3']);
  // Nothing that stands holds what came with the third: no retention has removed it.
  assert.deepEqual(await kinds(0), ['gone 1', 'gone 2', 'missing 3']);
});
