/** What is done with the files that Litestream keeps beside a database: those of the fixture stand for them. */

import assert from 'node:assert/strict';
import { cp, mkdir, open, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { putWhatLitestreamKept } from '../../../lib/jobs/session/litestream-folder.js';
import { ltxFileName } from '../../../lib/ltx/header.js';
import { openFileReplica } from '../../../lib/replica/file.js';
import { encodeFile, makeHeader } from '../../ltx/pages.js';
import { bytes, target } from '../../support/replica.js';
import { scratchFolder } from '../../support/scratch.js';

// Seen from dist/test/jobs. TXIDs 1 to 12.
const FIXTURE = fileURLToPath(new URL('../../../../fixtures/ltx/litestream-0.5.17/ltx/0', import.meta.url));

const name = (txid: number): string => ltxFileName(BigInt(txid), BigInt(txid));
const from = (first: number, last: number): number[] =>
  Array.from({ length: last - first + 1 }, (_, i) => first + i);

/** A database's place with Litestream's own files beside it, and a replica that holds some of them. */
async function makeBoth(t: TestContext, kept: readonly number[], uploaded: readonly number[]) {
  const folder = await scratchFolder(t);
  const local = join(folder, '.app.db-litestream/ltx/0');
  const remote = join(folder, 'replica/ltx/0');
  for (const [place, txids] of [
    [local, kept],
    [remote, uploaded],
  ] as const) {
    await mkdir(place, { recursive: true });
    for (const txid of txids) {
      await cp(join(FIXTURE, name(txid)), join(place, name(txid)), { preserveTimestamps: true });
    }
  }
  const replica = await openFileReplica(join(folder, 'replica'));
  const warnings: string[] = [];
  return {
    local,
    remote,
    replica,
    warnings,
    takeOver: () =>
      putWhatLitestreamKept(replica, join(folder, 'app.db'), {
        onEvent: ({ level, message }) => void (level === 'warn' && warnings.push(message)),
      }),
    txids: async () => (await replica.list()).map(({ maxTxid }) => Number(maxTxid)),
  };
}

test('files that Litestream kept beyond the end of its replica are put there, with their bytes and times', async (t) => {
  for (const uploaded of [5, 11, 0]) {
    const both = await makeBoth(t, from(1, 12), from(1, uploaded));
    assert.equal(await both.takeOver(), 12 - uploaded);
    assert.deepEqual(await both.txids(), from(1, 12));
    for (const txid of from(uploaded + 1, 12)) {
      const [theirs, ours] = [join(both.local, name(txid)), join(both.remote, name(txid))];
      assert.ok((await readFile(theirs)).equals(await readFile(ours)), name(txid));
    }
    const [last] = (await both.replica.list()).slice(-1);
    const header = (await readFile(join(FIXTURE, name(12)))).subarray(32, 40).readBigInt64BE();
    assert.equal(last.timestampMs, Number(header));
    assert.equal(await both.takeOver(), 0);
    assert.deepEqual(both.warnings, []);
  }
});

test('nothing is put where the replica reaches as far as Litestream’s folder, or there is none', async (t) => {
  for (const kept of [from(1, 5), from(4, 5), []]) {
    const both = await makeBoth(t, kept, from(1, 5));
    assert.equal(await both.takeOver(), 0);
    assert.deepEqual(await both.txids(), from(1, 5));
    assert.deepEqual(both.warnings, []);
  }
});

test('what is damaged or missing among the kept files is refused before any of them is put', async (t) => {
  const damaged = await makeBoth(t, from(1, 12), from(1, 5));
  const file = await open(join(damaged.local, name(9)), 'r+');
  await file.write(Buffer.from([0xff]), 0, 1, (await file.stat()).size - 40);
  await file.close();
  await assert.rejects(damaged.takeOver(), /had not uploaded yet is not sound: .*0009\.ltx/);
  assert.deepEqual(await damaged.txids(), from(1, 5));

  const missing = await makeBoth(t, from(1, 12), from(1, 5));
  await rm(join(missing.local, name(8)));
  await assert.rejects(missing.takeOver(), { code: 'FORMAT', message: /0008\.ltx is missing/ });
  assert.deepEqual(await missing.txids(), from(1, 5));

  const renamed = await makeBoth(t, from(1, 12), from(1, 5));
  await cp(join(FIXTURE, name(3)), join(renamed.local, name(7)));
  await assert.rejects(renamed.takeOver(), { code: 'FORMAT', message: /expected TXID 0{15}7 alone/ });
  assert.deepEqual(await renamed.txids(), from(1, 5));
});

test('files of Litestream’s work with another replica are left alone, with a warning', async (t) => {
  const ours = encodeFile(makeHeader({ minTxid: 6n, maxTxid: 6n }), new Map([[1, new Uint8Array(1024)]]));
  // The same TXID is in both, and differs; or ours is the end, and Litestream does not have it.
  for (const kept of [from(1, 12), from(7, 12)]) {
    const both = await makeBoth(t, kept, from(1, 5));
    await both.replica.write(target(0, 6n), () => [ours]);
    assert.equal(await both.takeOver(), 0);
    assert.deepEqual(await both.txids(), from(1, 6));
    assert.match(both.warnings.join(), /reaches to TXID 0{15}c of another replica: remove it before/);
  }
  // What Litestream could not upload either.
  const far = await makeBoth(t, from(9, 12), from(1, 5));
  assert.equal(await far.takeOver(), 0);
  const empty = await makeBoth(t, from(2, 12), []);
  assert.equal(await empty.takeOver(), 0);
  assert.deepEqual([far.warnings.length, empty.warnings.length], [1, 1]);
});

test('where nothing shows whose the kept files are, it is a conflict and nothing is put', async (t) => {
  const both = await makeBoth(t, from(6, 12), from(1, 5));
  await assert.rejects(both.takeOver(), {
    code: 'CONFLICT',
    message: /nothing shows whether it belongs to it/,
  });
  // Only a merged file is left of what was uploaded.
  const merged = await makeBoth(t, from(5, 12), []);
  await merged.replica.write(target(1, 1n, 5n), bytes('any'));
  await assert.rejects(merged.takeOver(), { code: 'CONFLICT' });
  assert.equal((await merged.replica.list()).length, 1);
});
