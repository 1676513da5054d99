import assert from 'node:assert/strict';
import { mkdir, readdir, readFile, stat, symlink, unlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { JetliteError } from '../../lib/errors.js';
import { type RestoreOptions, type RestoreResult, restore } from '../../lib/jobs/restore.js';
import { openFileReplica } from '../../lib/replica/file.js';
import { ltxPath } from '../../lib/replica/names.js';
import type { LtxFileInfo, Replica } from '../../lib/replica/replica.js';
import { databaseBytes, type History, makeHistory, putLtx, random, timeOf } from '../support/ltx-history.js';
import { scratchFolder } from '../support/scratch.js';

interface Place {
  readonly folder: string;
  readonly output: string;
  readonly replica: Replica;
}

async function place(t: { after(done: () => Promise<void>): void }): Promise<Place> {
  const folder = await scratchFolder(t);
  const out = join(folder, 'out');
  await mkdir(out);
  return {
    folder,
    output: join(out, 'restored.db'),
    replica: await openFileReplica(join(folder, 'replica')),
  };
}

/** A snapshot of TXID 1 and one file for each TXID after it. */
async function putChain(replica: Replica, history: History): Promise<void> {
  await putLtx(replica, history, 9, 1, 1);
  for (let txid = 2; txid < history.states.length; txid++) await putLtx(replica, history, 0, txid, txid);
}

async function rejection(work: Promise<RestoreResult>): Promise<JetliteError> {
  try {
    await work;
  } catch (error) {
    assert.ok(error instanceof JetliteError, `${error}`);
    return error;
  }
  assert.fail('expected a refusal');
}

async function damage(folder: string, path: string, change: (bytes: Buffer) => Buffer): Promise<void> {
  const file = join(folder, 'replica', path);
  await writeFile(file, change(await readFile(file)));
}

/** The replica, except that reading does what `onRead` does first. */
function withReads(replica: Replica, onRead: (file: LtxFileInfo) => Promise<void>): Replica {
  return new Proxy(replica, {
    get(target, key) {
      if (key === 'read') {
        return async function* (file: LtxFileInfo) {
          await onRead(file);
          yield* target.read(file);
        };
      }
      const value: unknown = Reflect.get(target, key);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}

test('every TXID of a chain comes back byte for byte, private, with nothing left beside it', async (t) => {
  const { output, replica } = await place(t);
  const history = makeHistory(12, 4096, 40, random(1));
  await putChain(replica, history);
  for (let txid = 1; txid <= 12; txid++) {
    const result = await restore({ replica, output, txid: BigInt(txid), force: true });
    assert.ok(result.kind === 'restored');
    assert.deepEqual(await readFile(output), databaseBytes(history, txid));
    assert.deepEqual(
      [result.txid, result.timestampMs, result.pageSize, result.pageCount],
      [BigInt(txid), timeOf(txid), 4096, history.states[txid].length],
    );
  }
  assert.deepEqual(await readdir(join(output, '..')), ['restored.db']);
  assert.equal((await stat(output)).mode & 0o777, 0o600);
});

test('random replicas of overlapping files at all levels lead to the right bytes', async (t) => {
  const { folder } = await place(t);
  for (let seed = 1; seed <= 25; seed++) {
    const below = random(seed);
    const length = 2 + below(9);
    const history = makeHistory(length, 512 << below(5), 30, below);
    const replica = await openFileReplica(join(folder, `replica-${seed}`));
    await putLtx(replica, history, 9, 1, 1 + below(length));
    for (let n = below(12); n > 0; n--) {
      const min = 1 + below(length);
      await putLtx(replica, history, 1 + below(9), min, min + below(length - min + 1));
    }
    for (let txid = 2; txid <= length; txid++) await putLtx(replica, history, 0, txid, txid);
    const txid = 1 + below(length);
    const output = join(folder, `${seed}.db`);
    const wish = below(2) === 0 ? { txid: BigInt(txid) } : { timestampMs: timeOf(txid) + below(1000) };
    const result = await restore({ replica, output, ...wish, parallelism: 1 + below(4) }).catch((error) => {
      assert.equal(error.code, 'NOT_FOUND', `seed ${seed}: ${error}`);
    });
    if (result === undefined) continue;
    assert.ok(result.kind === 'restored');
    assert.deepEqual(await readFile(output), databaseBytes(history, Number(result.txid)), `seed ${seed}`);
    assert.ok(result.txid === BigInt(txid), `seed ${seed}`);
  }
});

test('pages of zeros take no space and read as zeros', async (t) => {
  const { output, replica } = await place(t);
  const pages = Array.from({ length: 2000 }, (_, i) => new Uint8Array(4096).fill(i % 1000 === 0 ? 7 : 0));
  const history: History = { pageSize: 4096, states: [[], pages] };
  await putLtx(replica, history, 9, 1, 1);
  await restore({ replica, output });
  assert.deepEqual(await readFile(output), databaseBytes(history, 1));
  assert.ok((await stat(output)).blocks * 512 < 100_000);
});

test('a page of zeros replaces what was there, and a database that shrinks and grows again has no old bytes', async (t) => {
  const { output, replica } = await place(t);
  const full = (value: number): Uint8Array => new Uint8Array(1024).fill(value);
  const four = [1, 2, 3, 4].map(full);
  const one = [four[0]];
  // Page 3 comes back as zeros that no file holds, as SQLite may leave a page it never wrote.
  const states = [[], four, one, [four[0], full(9), full(0), full(8)]];
  const history: History = { pageSize: 1024, states };
  await putLtx(replica, history, 0, 1, 1);
  await putLtx(replica, history, 0, 2, 2);
  await putLtx(replica, history, 0, 3, 3);
  await restore({ replica, output });
  assert.deepEqual(await readFile(output), databaseBytes(history, 3));
  const zeroed: History = { pageSize: 1024, states: [[], four, [full(1), full(0), four[2], four[3]]] };
  const other = await openFileReplica(join(output, '../../other'));
  await putLtx(other, zeroed, 9, 1, 1);
  await putLtx(other, zeroed, 0, 2, 2);
  await restore({ replica: other, output, force: true });
  assert.deepEqual(await readFile(output), databaseBytes(zeroed, 2));
});

test('a damaged file is named, whatever is wrong with it, and nothing is left at the output', async (t) => {
  const history = makeHistory(3, 1024, 20, random(5));
  const damages: [string, (bytes: Buffer) => Buffer][] = [
    [
      'a flipped bit',
      (bytes) => Buffer.concat([bytes.subarray(0, 150), Buffer.from([bytes[150] ^ 4]), bytes.subarray(151)]),
    ],
    ['cut short', (bytes) => bytes.subarray(0, bytes.length - 20)],
    ['empty', () => Buffer.alloc(0)],
    ['something after the end', (bytes) => Buffer.concat([bytes, Buffer.from('x')])],
    ['another magic number', (bytes) => Buffer.concat([Buffer.from('LTX2'), bytes.subarray(4)])],
    ['noise', (bytes) => Buffer.from(bytes.map((_, i) => (i * 71) & 255))],
  ];
  for (const [what, change] of damages) {
    for (const victim of [
      'ltx/9/0000000000000001-0000000000000001.ltx',
      'ltx/0/0000000000000003-0000000000000003.ltx',
    ]) {
      const { folder, output, replica } = await place(t);
      await putChain(replica, history);
      await damage(folder, victim, change);
      const error = await rejection(restore({ replica, output }));
      assert.equal(error.code, 'FORMAT', what);
      assert.ok(error.message.startsWith(victim), `${what}: ${error.message}`);
      assert.match(error.hint ?? '', /Restore an earlier state/);
      assert.deepEqual(await readdir(join(output, '..')), [], what);
    }
  }
});

test('a file whose header has other TXIDs than its name, or other pages than the chain, is refused', async (t) => {
  const { folder, output, replica } = await place(t);
  const history = makeHistory(3, 1024, 20, random(6));
  await putChain(replica, history);
  const second = await readFile(join(folder, 'replica/ltx/0/0000000000000002-0000000000000002.ltx'));
  await damage(folder, 'ltx/0/0000000000000003-0000000000000003.ltx', () => second);
  const swapped = await rejection(restore({ replica, output }));
  assert.match(swapped.message, /^ltx\/0\/0{15}3-.*expected the TXIDs of its name, found 0{15}2 to 0{15}2/);

  const larger = makeHistory(3, 2048, 20, random(6));
  const mixed = await openFileReplica(join(folder, 'mixed'));
  await putLtx(mixed, history, 9, 1, 1);
  await putLtx(mixed, larger, 0, 2, 2);
  const pages = await rejection(restore({ replica: mixed, output }));
  assert.match(pages.message, /^ltx\/0\/0{15}2-.*expected pages of 1024 bytes .* found 2048/);
  assert.deepEqual(await readdir(join(output, '..')), []);
});

test('an output that exists is left alone, unless forced or excused', async (t) => {
  const { output, replica } = await place(t);
  const history = makeHistory(2, 1024, 20, random(7));
  await putChain(replica, history);
  await writeFile(output, 'precious');
  const refused = await rejection(restore({ replica, output }));
  assert.equal(refused.code, 'OUTPUT');
  assert.match(refused.hint ?? '', /--force/);
  const skipped = await restore({ replica, output, ifDbNotExists: true });
  assert.deepEqual(
    [skipped.kind, skipped.kind === 'skipped' && skipped.reason],
    ['skipped', 'database-exists'],
  );
  assert.equal(await readFile(output, 'utf8'), 'precious');
  await restore({ replica, output, force: true });
  assert.deepEqual(await readFile(output), databaseBytes(history, 2));
});

test('a failed forced restore leaves the old database and its companions as they were', async (t) => {
  const { folder, output, replica } = await place(t);
  await putChain(replica, makeHistory(2, 1024, 20, random(7)));
  await damage(folder, 'ltx/0/0000000000000002-0000000000000002.ltx', (bytes) => bytes.subarray(1));
  await writeFile(output, 'precious');
  await writeFile(`${output}-wal`, 'frames');
  assert.equal((await rejection(restore({ replica, output, force: true }))).code, 'FORMAT');
  assert.equal(await readFile(output, 'utf8'), 'precious');
  assert.equal(await readFile(`${output}-wal`, 'utf8'), 'frames');
  assert.deepEqual((await readdir(join(output, '..'))).sort(), ['restored.db', 'restored.db-wal']);
});

test('leftovers of another database cannot be replayed into the restored one', async (t) => {
  const { output, replica } = await place(t);
  const history = makeHistory(2, 1024, 20, random(8));
  await putChain(replica, history);
  for (const suffix of ['-wal', '-journal']) {
    await writeFile(output + suffix, 'left behind');
    const refused = await rejection(restore({ replica, output }));
    assert.equal(refused.code, 'OUTPUT');
    assert.ok(refused.message.startsWith(output + suffix), refused.message);
    const forced = await restore({ replica, output, force: true });
    assert.ok(forced.kind === 'restored');
    assert.deepEqual(forced.removed, [output + suffix]);
    assert.deepEqual(await readdir(join(output, '..')), ['restored.db']);
    await unlink(output);
  }
  // An empty WAL and an index without one change nothing.
  await writeFile(`${output}-wal`, '');
  await writeFile(`${output}-shm`, 'index');
  await restore({ replica, output });
  assert.deepEqual(await readFile(output), databaseBytes(history, 2));
});

test('an output that is a folder, a link to nowhere or below a file is refused', async (t) => {
  const { folder, output, replica } = await place(t);
  await putChain(replica, makeHistory(2, 1024, 20, random(9)));
  const isFolder = await rejection(restore({ replica, output: join(output, '..'), force: true }));
  assert.match(isFolder.message, /found the folder/);
  await symlink(join(folder, 'nowhere'), output);
  assert.match((await rejection(restore({ replica, output }))).message, /leads nowhere/);
  await writeFile(join(folder, 'file'), '');
  const below = await rejection(restore({ replica, output: join(folder, 'file', 'x.db') }));
  assert.equal(below.code, 'OUTPUT');
});

test('a forced restore through a symbolic link replaces the database and keeps the link', async (t) => {
  const { folder, output, replica } = await place(t);
  const history = makeHistory(2, 1024, 20, random(9));
  await putChain(replica, history);
  const real = join(folder, 'real.db');
  await writeFile(real, 'old');
  await writeFile(`${real}-wal`, 'old frames');
  await symlink(real, output);
  const result = await restore({ replica, output, force: true });
  assert.ok(result.kind === 'restored');
  assert.equal(result.output, real);
  assert.deepEqual(result.removed, [`${real}-wal`]);
  assert.deepEqual(await readFile(output), databaseBytes(history, 2));
});

test('missing folders above the output are made', async (t) => {
  const { folder, replica } = await place(t);
  const history = makeHistory(2, 1024, 20, random(10));
  await putChain(replica, history);
  const output = join(folder, 'a/b/c.db');
  await restore({ replica, output });
  assert.deepEqual(await readFile(output), databaseBytes(history, 2));
});

test('an empty replica is an error, or none where that is expected', async (t) => {
  const { output, replica } = await place(t);
  assert.equal((await rejection(restore({ replica, output }))).code, 'NOT_FOUND');
  const skipped = await restore({ replica, output, ifReplicaExists: true });
  assert.deepEqual([skipped.kind, skipped.kind === 'skipped' && skipped.reason], ['skipped', 'no-replica']);
  assert.deepEqual(await readdir(join(output, '..')), []);
});

test('a dry run gives the plan and touches nothing', async (t) => {
  const { output, replica } = await place(t);
  await putChain(replica, makeHistory(3, 1024, 20, random(11)));
  const result = await restore({ replica, output, dryRun: true, txid: 2n });
  assert.ok(result.kind === 'planned');
  assert.deepEqual(result.plan.files.map(ltxPath), [
    'ltx/9/0000000000000001-0000000000000001.ltx',
    'ltx/0/0000000000000002-0000000000000002.ltx',
  ]);
  assert.deepEqual(await readdir(join(output, '..')), []);
});

test('a TXID and a timestamp at once are refused', async (t) => {
  const { output, replica } = await place(t);
  assert.equal((await rejection(restore({ replica, output, txid: 1n, timestampMs: 1 }))).code, 'USAGE');
});

test('a file that vanishes before or while it is read makes it plan again and go on', async (t) => {
  const history = makeHistory(9, 1024, 30, random(12));
  for (const parallelism of [1, 8]) {
    const { output, replica } = await place(t);
    await putChain(replica, history);
    let merged = false;
    // When the fifth file's turn comes, 5 to 9 have been merged and the small ones are gone.
    const merging = withReads(replica, async (file) => {
      if (merged || file.maxTxid < 5n) return;
      merged = true;
      await putLtx(replica, history, 1, 5, 9);
      await replica.remove((await replica.list(0)).filter((f) => f.minTxid >= 5n));
    });
    const result = await restore({ replica: merging, output, parallelism });
    assert.ok(result.kind === 'restored' && merged);
    assert.equal(result.txid, 9n);
    assert.deepEqual(await readFile(output), databaseBytes(history, 9));
  }
});

test('a file that vanishes in the middle does no harm, whether the chain goes on or a snapshot replaces it', async (t) => {
  const history = makeHistory(6, 1024, 300, random(13));
  for (const replacement of [
    [1, 3, 6],
    [9, 1, 6],
  ]) {
    const { output, replica } = await place(t);
    await putChain(replica, history);
    let broken = 0;
    const breaking = new Proxy(replica, {
      get(target, key) {
        if (key !== 'read') {
          const value: unknown = Reflect.get(target, key);
          return typeof value === 'function' ? value.bind(target) : value;
        }
        return async function* (file: LtxFileInfo) {
          if (file.maxTxid !== 3n || file.level !== 0) return yield* target.read(file);
          for await (const chunk of target.read(file)) {
            yield chunk.subarray(0, chunk.length / 2);
            broken++;
            const [level, min, max] = replacement;
            await putLtx(replica, history, level, min, max);
            await replica.remove((await replica.list(0)).filter((f) => f.minTxid >= 3n));
            throw new JetliteError('NOT_FOUND', 'gone');
          }
        };
      },
    });
    // Large enough to be streamed, so that half of it is applied.
    const listed = {
      list: async () => (await replica.list()).map((f) => (f.maxTxid === 3n ? { ...f, size: 2 ** 21 } : f)),
    };
    const streaming = new Proxy(breaking, {
      get: (target, key) => (key === 'list' ? listed.list : Reflect.get(target, key)),
    });
    const result = await restore({ replica: streaming, output });
    assert.ok(result.kind === 'restored');
    assert.equal(broken, 1);
    assert.equal(result.txid, 6n);
    assert.deepEqual(await readFile(output), databaseBytes(history, 6));
  }
});

test('a replica that loses its newest files while it is read does not pass for an older one', async (t) => {
  const { output, replica } = await place(t);
  await putChain(replica, makeHistory(5, 1024, 20, random(18)));
  const losing = withReads(replica, async (file) => {
    if (file.maxTxid === 4n) await replica.remove((await replica.list(0)).filter((f) => f.minTxid >= 4n));
  });
  const error = await rejection(restore({ replica: losing, output, parallelism: 1 }));
  assert.equal(error.code, 'NOT_FOUND');
  assert.match(error.message, /led to TXID 0{15}5 were removed while they were read/);
  assert.deepEqual(await readdir(join(output, '..')), []);
});

test('files that keep vanishing end in an error and leave nothing', async (t) => {
  const { output, replica } = await place(t);
  await putChain(replica, makeHistory(3, 1024, 20, random(14)));
  let reads = 0;
  const gone = withReads(replica, async () => {
    reads++;
    throw new JetliteError('NOT_FOUND', 'it is gone');
  });
  assert.equal((await rejection(restore({ replica: gone, output }))).message, 'it is gone');
  assert.ok(reads < 100);
  assert.deepEqual(await readdir(join(output, '..')), []);
});

test('an abort ends it and leaves nothing', async (t) => {
  const { output, replica } = await place(t);
  await putChain(replica, makeHistory(5, 1024, 20, random(15)));
  const controller = new AbortController();
  const stopping = withReads(replica, async (file) => {
    if (file.maxTxid === 3n) controller.abort();
  });
  const options: RestoreOptions = { replica: stopping, output, parallelism: 1, signal: controller.signal };
  assert.equal((await rejection(restore(options))).code, 'ABORTED');
  assert.equal((await rejection(restore(options))).code, 'ABORTED');
  assert.deepEqual(await readdir(join(output, '..')), []);
});

test('an integrity check that fails keeps the output from appearing', async (t) => {
  const { output, replica } = await place(t);
  await putChain(replica, makeHistory(1, 1024, 20, random(16)));
  const error = await rejection(restore({ replica, output, integrityCheck: 'quick' }));
  assert.equal(error.code, 'VERIFY');
  assert.match(error.message, /the restored database is damaged: /);
  assert.deepEqual(await readdir(join(output, '..')), []);
});

test('progress counts the bytes of the plan', async (t) => {
  const { output, replica } = await place(t);
  await putChain(replica, makeHistory(4, 1024, 20, random(17)));
  const seen: number[] = [];
  let totalBytes = 0;
  const result = await restore({
    replica,
    output,
    onProgress: (progress) => {
      seen.push(progress.bytes);
      totalBytes = progress.totalBytes;
    },
  });
  assert.ok(result.kind === 'restored');
  assert.equal(seen[seen.length - 1], totalBytes);
  assert.equal(result.bytesRead, totalBytes);
  assert.deepEqual(
    seen,
    [...seen].sort((a, b) => a - b),
  );
});
