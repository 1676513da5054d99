import assert from 'node:assert/strict';
import { cp, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { JetliteError } from '../../lib/errors.js';
import { planRestore, reachableStates } from '../../lib/jobs/plan.js';
import { restore } from '../../lib/jobs/restore.js';
import { tidy } from '../../lib/jobs/tidy/tidy.js';
import { openFileReplica } from '../../lib/replica/file.js';
import type { Replica } from '../../lib/replica/replica.js';
import { replicaWith } from '../support/homes.js';
import { databaseBytes, makeHistory, putLtx, timeOf } from '../support/ltx-history.js';
import { randomSource } from '../support/random.js';
import { scratchFolder } from '../support/scratch.js';

const LENGTH = 24;
/** Everything that is not needed for the newest states goes at once. */
const GREEDY = {
  levelIntervalsMs: [3000, 9000],
  snapshotIntervalMs: 1000,
  snapshotRetentionMs: 1000,
  level0RetentionMs: 1000,
};

/** The replica in which files are merged and removed before the `at`-th read of a file begins. */
function tidiedAt(replica: Replica, at: number, nowMs: number): Replica {
  let reads = 0;
  return replicaWith(replica, {
    read: async function* (file, range) {
      if (++reads === at) await tidy(replica, { settings: GREEDY, nowMs, snapshot: 'now' });
      yield* replica.read(file, range);
    },
  });
}

test('files that are merged and removed while a restore reads them make it plan again', async (t) => {
  const random = randomSource(t);
  const history = makeHistory(LENGTH, 512, 12, (below) => random.below(below));
  const folder = await scratchFolder(t);
  const template = join(folder, 'template');
  const made = await openFileReplica(template);
  for (let txid = 1; txid <= LENGTH; txid++) await putLtx(made, history, 0, txid, txid);
  const planned = planRestore(await made.list(), { kind: 'newest' }).files.length;
  const output = join(folder, 'restored.db');
  let again = 0;
  for (let at = 1; at <= planned; at += 1 + random.below(10)) {
    for (const wish of [undefined, BigInt(LENGTH - 1 - random.below(10))]) {
      const place = join(folder, `${at}-${wish ?? 'newest'}`);
      await cp(template, place, { recursive: true, preserveTimestamps: true });
      const replica = await openFileReplica(place);
      const moving = tidiedAt(replica, at, timeOf(LENGTH) + 60_000);
      const options = { replica: moving, output, force: true, parallelism: 1 };
      try {
        const result = await restore(wish === undefined ? options : { ...options, txid: wish });
        assert.equal(result.kind, 'restored');
        const expected = databaseBytes(history, Number(wish ?? LENGTH));
        assert.ok((await readFile(output)).equals(expected), `read ${at}, ${wish ?? 'newest'}`);
        again++;
      } catch (error) {
        // What is not promised any more may be gone, and that is said.
        assert.ok(error instanceof JetliteError && error.code === 'NOT_FOUND', String(error));
        const offered = reachableStates(await replica.list()).map(({ txid }) => txid);
        assert.ok(
          !offered.includes(wish ?? BigInt(LENGTH)),
          `read ${at}: ${wish ?? 'newest'} is offered and refused`,
        );
      }
    }
  }
  t.diagnostic(`${again} restores went on`);
  assert.ok(again > 0);
});

test('a moment whose files are gone by now leads to the state that it leads to for whoever asks now', async (t) => {
  const random = randomSource(t);
  const history = makeHistory(LENGTH, 512, 12, (below) => random.below(below));
  const folder = await scratchFolder(t);
  const replica = await openFileReplica(join(folder, 'replica'));
  for (let txid = 1; txid <= LENGTH; txid++) await putLtx(replica, history, 0, txid, txid);
  await putLtx(replica, history, 9, 1, 10);
  let gone = false;
  const moving = replicaWith(replica, {
    read: async function* (file, range) {
      if (!gone && file.minTxid > 10n) {
        gone = true;
        await replica.remove((await replica.list(0)).filter(({ maxTxid }) => maxTxid < BigInt(LENGTH)));
      }
      yield* replica.read(file, range);
    },
  });
  const output = join(folder, 'restored.db');
  const result = await restore({ replica: moving, output, timestampMs: timeOf(20), parallelism: 1 });
  assert.ok(gone && result.kind === 'restored');
  assert.equal(result.txid, 10n);
  assert.ok((await readFile(output)).equals(databaseBytes(history, 10)));
});
