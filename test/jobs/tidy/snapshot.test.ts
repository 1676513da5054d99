import assert from 'node:assert/strict';
import { mkdir, readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { Capture } from '../../../lib/capture/capture.js';
import { PageSums } from '../../../lib/capture/page-sums.js';
import { ResumeState } from '../../../lib/capture/resume-state.js';
import { encodeSums } from '../../../lib/capture/sums-format.js';
import { JetliteError } from '../../../lib/errors.js';
import { backup } from '../../../lib/jobs/backup.js';
import { restore } from '../../../lib/jobs/restore.js';
import { putBatch } from '../../../lib/jobs/session/put-batch.js';
import { goOnWith } from '../../../lib/jobs/session/replica-state.js';
import { putSnapshot } from '../../../lib/jobs/tidy/snapshot.js';
import { readSnapshotSums, removeSnapshotSums } from '../../../lib/jobs/tidy/snapshot-sums.js';
import { tidy } from '../../../lib/jobs/tidy/tidy.js';
import { decodeLtx } from '../../../lib/ltx/decoder.js';
import { openReplica } from '../../../lib/replica/open.js';
import type { LtxFileInfo, Replica } from '../../../lib/replica/replica.js';
import { Application } from '../../support/application.js';
import { CaptureStage, LONG } from '../../support/capture-stage.js';
import { inEveryHome, type OpenReplica, replicaWith } from '../../support/homes.js';
import { firstDifference } from '../../support/oracle/check.js';
import { scratchFolder } from '../../support/scratch.js';

/** A database that is captured and put, as `replicate` does, one look at a time. */
class Source {
  readonly capture: Capture;
  readonly replica: Replica;
  txid = 0n;
  #timestampMs = 0;

  constructor(database: string, scratchDir: string, replica: Replica) {
    this.capture = Capture.open({ database, scratchDir, fileEvents: false });
    this.replica = replica;
  }

  /** Everything that was committed. */
  async catchUp(): Promise<void> {
    while ((await this.look()) !== 'current') await this.capture.wait(2);
  }

  /** One look, and what it brought. */
  async look(): Promise<'current' | 'more' | 'wait'> {
    const { capture, replica } = this;
    const state = await capture.poll();
    const batch = capture.take();
    if (batch === undefined) return state;
    this.txid++;
    this.#timestampMs = Math.max(this.#timestampMs, batch.timestampMs);
    await putBatch(replica, batch, this.txid, { timestampMs: this.#timestampMs });
    capture.recycle(batch.pages);
    return state;
  }

  /** Looks on while something is going on. */
  async during<T>(work: Promise<T>): Promise<T> {
    let over = false;
    const ended = work.finally(() => {
      over = true;
    });
    ended.catch(() => {});
    while (!over) {
      await this.look();
      await this.capture.wait(2);
    }
    return ended;
  }
}

async function pagesOf(replica: Replica, file: LtxFileInfo): Promise<Buffer> {
  let content = Buffer.alloc(0);
  await decodeLtx('snapshot', replica.read(file), {
    header: ({ commit, pageSize }) => {
      content = Buffer.alloc(commit * pageSize);
    },
    page: (pgno, page) => content.set(page, (pgno - 1) * page.length),
  });
  return content;
}

/** A TXID restored from the captured files alone. */
async function restored(replica: Replica, txid: bigint, output: string): Promise<Buffer> {
  const captured = replicaWith(replica, { list: () => replica.list(0) });
  await restore({ replica: captured, txid, output, force: true });
  return readFile(output);
}

inEveryHome(
  'snapshots of a database that is written all the time are those of their TXID',
  async (open, t) => {
    const stage = await CaptureStage.open(t);
    if (stage === undefined) return;
    const writer = await stage.writer({
      rows: [1500, 4000],
      rate: 400,
      autocheckpoint: 100,
      vacuumEvery: 300,
    });
    const replica = await open();
    const source = new Source(stage.database, stage.folder, replica);
    t.after(() => source.capture.close());
    const rounds = LONG ? 40 : 6;
    let made = 0;
    for (let round = 0; round < rounds; round++) {
      for (let looks = 0; looks < 5; looks++) await source.look();
      const image = source.capture.freeze()!;
      const { txid } = source;
      const file = await source.during(putSnapshot(replica, { txid, image }));
      image.close();
      if (file === undefined) continue;
      made++;
      assert.deepEqual([file.level, file.minTxid, file.maxTxid], [9, 1n, txid]);
      assert.equal(
        file.timestampMs,
        (await replica.list(0)).find(({ maxTxid }) => maxTxid === txid)!.timestampMs,
      );
      const expected = await restored(replica, txid, join(stage.folder, 'restored.db'));
      assert.ok((await pagesOf(replica, file)).equals(expected), `TXID ${txid}`);
    }
    await writer.stop();
    t.diagnostic(`${made} of ${rounds} from the live files, ${source.txid} TXIDs meanwhile`);
    assert.ok(made > rounds / 2, `${made} of ${rounds}`);
  },
);

test('pages that a checkpoint overwrote unseen come from the replica, and without it there is no snapshot', async (t) => {
  const application = await Application.inScratchFolder(t);
  if (application === undefined) return;
  await application.open({ pragmas: ['journal_mode=WAL', 'wal_autocheckpoint=0'] });
  await application.run(
    'CREATE TABLE t(id INTEGER PRIMARY KEY, x BLOB)',
    'WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) INSERT INTO t SELECT i, randomblob(900) FROM n',
  );
  const replica = await openReplica(join(application.folder, 'replica'));
  const source = new Source(application.path, application.folder, replica);
  t.after(() => source.capture.close());
  await source.look();
  await application.run(
    'UPDATE t SET x = randomblob(900) WHERE id = 2000',
    'PRAGMA wal_checkpoint(TRUNCATE)',
  );
  await source.look();
  const image = source.capture.freeze()!;
  const { txid } = source;
  await application.run('UPDATE t SET x = randomblob(900) WHERE id > 1990 AND id < 2010');
  await application.run('PRAGMA wal_checkpoint(TRUNCATE)');
  await source.look();

  const gone: Replica['read'] = () => {
    throw new JetliteError('NOT_FOUND', 'removed');
  };
  assert.equal(await putSnapshot(replicaWith(replica, { read: gone }), { txid, image }), undefined);
  assert.deepEqual(await replica.list(9), []);
  assert.deepEqual(
    await namesUnder(join(application.folder, 'replica')),
    ['ltx/0'],
    'nothing is left behind',
  );

  const file = await putSnapshot(replica, { txid, image });
  image.close();
  const expected = await restored(replica, txid, join(application.folder, 'restored.db'));
  assert.ok((await pagesOf(replica, file!)).equals(expected));
});

async function namesUnder(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  const folders = entries
    .filter((entry) => entry.isFile())
    .map((entry) => entry.parentPath.slice(folder.length + 1));
  return [...new Set(folders)];
}

/** A replica with a snapshot in the middle of its chain, of a closed database. */
async function withSnapshot(open: OpenReplica, t: TestContext, byMerging = false) {
  const stage = await CaptureStage.open(t);
  if (stage === undefined) return undefined;
  const writer = await stage.writer({ paused: true, rows: [1500, 1600] });
  await writer.command('step 300');
  const replica = await open();
  const source = new Source(stage.database, stage.folder, replica);
  await source.look();
  await writer.command('step 3');
  await source.look();
  const image = source.capture.freeze()!;
  if (byMerging) await tidy(replica, { snapshot: 'now', retain: false });
  else await putSnapshot(replica, { txid: source.txid, image });
  image.close();
  const [snapshot] = await replica.list(9);
  await writer.command('step 3');
  await source.look();
  await writer.command('step 3');
  await writer.stop();
  source.capture.close();
  return { stage, replica, snapshot, txid: source.txid };
}

inEveryHome(
  'a host that kept nothing goes on from the sums beside a snapshot, not from its pages',
  (open, t) => goOnFromSums(open, t, false),
);

inEveryHome('a snapshot that was merged has its sums beside it, too', (open, t) =>
  goOnFromSums(open, t, true),
);

async function goOnFromSums(open: OpenReplica, t: TestContext, byMerging: boolean): Promise<void> {
  const made = await withSnapshot(open, t, byMerging);
  if (made === undefined) return;
  const { stage, replica, snapshot, txid } = made;
  const { database, folder } = stage;
  let bytesOfSnapshots = 0;
  const counting = replicaWith(replica, {
    read: (file, range) => {
      if (file.minTxid === 1n) bytesOfSnapshots += range?.length ?? file.size;
      return replica.read(file, range);
    },
  });
  const stateDir = join(folder, 'state');
  await mkdir(stateDir);
  const capture = Capture.open({ database, scratchDir: stateDir, fileEvents: false });
  const state = new ResumeState(stateDir, () => {});
  const before = await goOnWith(counting, capture, state, {});
  assert.equal(before.txid, txid);
  assert.ok(bytesOfSnapshots < 1000, `${bytesOfSnapshots} bytes of snapshots read`);
  await capture.poll();
  const batch = capture.take()!;
  assert.ok(batch.pages.size < batch.pageCount / 4, `${batch.pages.size} of ${batch.pageCount} pages differ`);
  batch.pages.close();
  capture.close();

  const result = await backup({ database, replica: counting, stateDir });
  assert.equal(result.kind, 'incremental');
  const output = join(folder, 'restored.db');
  await restore({ replica, output });
  assert.equal(await firstDifference(database, output), undefined);

  await replica.remove([snapshot]);
  await removeSnapshotSums(replica, [snapshot]);
  const name = 'page-sums/9-0000000000000002';
  assert.deepEqual(
    [await replica.readExtra(name), await replica.readExtra(`${name}-0`)],
    [undefined, undefined],
  );
}

/** Header and part as they would stand beside another file of the snapshot's TXID, sound in every other way. */
async function sumsOfAnother(replica: Replica, folder: string): Promise<[Buffer, Buffer]> {
  const sums = new PageSums({ memoryBytes: 1024 * 1024, spillPath: join(folder, 'sums-of-another') });
  const txid = await readSnapshotSums(replica, await replica.list(9), sums, 4096);
  assert.equal(txid, 2n);
  const [header, ...parts] = encodeSums(sums, { txid, fileChecksum: 1n << 63n }, 4096);
  const found: [Buffer, Buffer] = [Buffer.from(header), Buffer.concat(parts)];
  sums.close();
  return found;
}

inEveryHome('sums that are damaged, cut, another snapshot’s or lying are not believed', async (open, t) => {
  const made = await withSnapshot(open, t);
  if (made === undefined) return;
  const { stage, replica, snapshot } = made;
  const { database, folder } = stage;
  const name = 'page-sums/9-0000000000000002';
  const header = Buffer.from((await replica.readExtra(name))!.bytes);
  const part = Buffer.from((await replica.readExtra(`${name}-0`))!.bytes);
  const changed = (bytes: Buffer, change: (bytes: Buffer) => void): Buffer => {
    const copy = Buffer.from(bytes);
    change(copy);
    return copy;
  };
  const wrong: readonly (readonly [string, Buffer, Buffer])[] = [
    ['a flipped bit', header, changed(part, (b) => b.writeUInt8(b[80] ^ 4, 80))],
    ['cut', header, part.subarray(0, part.length - 16)],
    ['too long', header, Buffer.concat([part, Buffer.alloc(8)])],
    ['an odd length', header, part.subarray(0, part.length - 3)],
    ['another TXID', changed(header, (b) => b.writeBigUInt64BE(3n, 8)), part],
    ['another file', changed(header, (b) => b.writeUInt8(b[20] ^ 1, 20)), part],
    ['sound, of another file of that TXID', ...(await sumsOfAnother(replica, folder))],
    ['another page size', changed(header, (b) => b.writeUInt32BE(8192, 24)), part],
    ['more pages than there are', changed(header, (b) => b.writeUInt32BE(0xffffffff, 28)), part],
    ['no header', header.subarray(0, 20), part],
    ['nothing', Buffer.alloc(0), Buffer.alloc(0)],
  ];
  for (const [what, head, body] of wrong) {
    await replica.writeExtra(name, head);
    await replica.writeExtra(`${name}-0`, body);
    const read: LtxFileInfo[] = [];
    const counting = replicaWith(replica, {
      read: (file, range) => {
        if (range === undefined) read.push(file);
        return replica.read(file, range);
      },
    });
    const stateDir = join(folder, 'state');
    await mkdir(stateDir);
    const capture = Capture.open({ database, scratchDir: stateDir, fileEvents: false });
    const { txid } = await goOnWith(counting, capture, new ResumeState(stateDir, () => {}), {});
    assert.equal(txid, 3n, what);
    assert.ok(
      read.some(({ minTxid }) => minTxid === 1n),
      `${what}: the state is read from its files`,
    );
    await capture.poll();
    const batch = capture.take()!;
    assert.ok(batch.pages.size < batch.pageCount / 4, what);
    batch.pages.close();
    capture.close();
    await rm(stateDir, { recursive: true });
  }
  await removeSnapshotSums(replica, [snapshot]);
});

test('a first backup leaves its sums beside it for a host that keeps nothing', async (t) => {
  const stage = await CaptureStage.open(t);
  if (stage === undefined) return;
  const writer = await stage.writer({ paused: true });
  await writer.command('step 200');
  const { database } = stage;
  const replica = await openReplica(join(await scratchFolder(t), 'replica'));
  await backup({ database, replica, stateDir: join(stage.folder, 'one') });
  await writer.command('step 2');
  await writer.stop();
  const counting = replicaWith(replica, {
    read: (file, range) => {
      assert.notEqual(range, undefined, 'no file is read whole');
      return replica.read(file, range);
    },
  });
  const { kind } = await backup({ database, replica: counting, stateDir: join(stage.folder, 'two') });
  assert.equal(kind, 'incremental');
});

test('pages that went with a shrunken database and came back as they were are written again', async (t) => {
  const application = await Application.inScratchFolder(t);
  if (application === undefined) return;
  const { folder, path: database } = application;
  await application.open({ pragmas: ['journal_mode=DELETE', 'auto_vacuum=FULL'] });
  const fill =
    'WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400) ' +
    "INSERT INTO t SELECT i, CAST(printf('%.*c', 900, 'x') AS BLOB) FROM n";
  await application.run('CREATE TABLE t(id INTEGER PRIMARY KEY, x BLOB)', fill);
  const replica = await openReplica(join(folder, 'replica'));
  const source = new Source(database, folder, replica);
  await source.catchUp();
  const image = source.capture.freeze()!;
  const large = image.pageCount;
  assert.ok(await putSnapshot(replica, { txid: source.txid, image }));
  image.close();
  await application.run('DELETE FROM t WHERE id > 10');
  await source.catchUp();
  assert.ok(source.capture.sums.pageCount < large / 4);
  source.capture.close();
  await application.run('DELETE FROM t', fill);
  await application.close();

  const { kind, pagesWritten } = await backup({ database, replica, stateDir: join(folder, 'state') });
  assert.equal(kind, 'incremental');
  assert.ok(pagesWritten > large / 2, `${pagesWritten} of ${large} pages`);
  const output = join(folder, 'restored.db');
  await restore({ replica, output });
  assert.equal(await firstDifference(database, output), undefined);
});
