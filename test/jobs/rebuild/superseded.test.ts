/** Pages that a later file has again are written once, and the outcome is the same. */

import assert from 'node:assert/strict';
import { open, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { JetliteError } from '../../../lib/errors.js';
import { planRestore } from '../../../lib/jobs/plan.js';
import { type Rebuilt, rebuildDatabase } from '../../../lib/jobs/rebuild/rebuild.js';
import { Superseded } from '../../../lib/jobs/rebuild/superseded.js';
import { openFileReplica } from '../../../lib/replica/file.js';
import type { LtxFileInfo, ReadRange, Replica } from '../../../lib/replica/replica.js';
import { databaseBytes, type History, makeHistory, putLtx, random } from '../../support/ltx-history.js';
import { scratchFolder } from '../../support/scratch.js';

const NEWEST = { kind: 'newest' } as const;

async function rebuild(
  replica: Replica,
  path: string,
  files?: LtxFileInfo[],
): Promise<{ result: Rebuilt; bytes: Buffer }> {
  const file = await open(path, 'w+');
  try {
    const plan = planRestore(files ?? (await replica.list()), NEWEST);
    const result = await rebuildDatabase({ replica, wish: NEWEST, plan, file, writeOnce: true });
    return { result, bytes: await readFile(path) };
  } finally {
    await file.close();
  }
}

test('random chains that grow and shrink come out the same, with each page written once', async (t) => {
  const folder = await scratchFolder(t);
  for (let seed = 1; seed <= 40; seed++) {
    const below = random(seed);
    const length = 2 + below(8);
    const history = makeHistory(length, 512, 30, below);
    const replica = await openFileReplica(join(folder, `replica-${seed}`));
    await putLtx(replica, history, 9, 1, 1 + below(length));
    for (let n = below(4); n > 0; n--) {
      const min = 2 + below(length - 1);
      await putLtx(replica, history, 1 + below(8), min, min + below(length - min + 1));
    }
    for (let txid = 2; txid <= length; txid++) await putLtx(replica, history, 0, txid, txid);
    const { result, bytes } = await rebuild(replica, join(folder, `${seed}.db`));
    assert.ok(databaseBytes(history, length).equals(bytes), `seed ${seed}`);
    // A page that was cut off later is no page of the outcome, but none is written twice.
    const highest = Math.max(...history.states.map((state) => state.length));
    assert.ok(result.pagesApplied <= highest, `seed ${seed}: ${result.pagesApplied} of ${highest}`);
  }
});

test('a page that was left to a file which vanishes is not lost where its successor begins later', async (t) => {
  const folder = await scratchFolder(t);
  const page = (value: number): Uint8Array => new Uint8Array(512).fill(value);
  const [one, old, changed, three, later] = [page(1), page(2), page(22), page(3), page(33)];
  // Page 2 changes in TXID 2 and page 3 in TXID 3: the file of 2 to 3 has both, that of 3 alone only one.
  const states = [[], [one, old, three], [one, changed, three], [one, changed, later]];
  const history: History = { pageSize: 512, states };
  const replica = await openFileReplica(join(folder, 'replica'));
  await putLtx(replica, history, 9, 1, 1);
  await putLtx(replica, history, 0, 2, 2);
  const wide = await putLtx(replica, history, 1, 2, 3);
  let gone = false;
  const losing = new Proxy(replica, {
    get(target, key) {
      if (key === 'read') {
        return async function* (file: LtxFileInfo, range?: ReadRange) {
          if (range === undefined && file.level === 1) {
            gone = true;
            await putLtx(replica, history, 0, 3, 3);
            await replica.remove([wide]);
            throw new JetliteError('NOT_FOUND', 'it is gone');
          }
          yield* target.read(file, range);
        };
      }
      const value: unknown = Reflect.get(target, key);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
  // A plan that goes through all three: the snapshot, TXID 2, and TXIDs 2 to 3 over that.
  const files = await replica.list();
  const file = await open(join(folder, 'a.db'), 'w+');
  t.after(() => file.close());
  const inOrder = [...files].sort((a, b) => Number(a.maxTxid - b.maxTxid));
  const plan = { files: inOrder, txid: 3n, timestampMs: 0, bytes: 0 };
  await rebuildDatabase({ replica: losing, wish: NEWEST, plan, file, writeOnce: true, parallelism: 1 });
  assert.ok(gone);
  assert.ok(databaseBytes(history, 3).equals(await readFile(join(folder, 'a.db'))));
});

test('it is done where the later files are large and few', () => {
  const sized = (...sizes: number[]): LtxFileInfo[] =>
    sizes.map((size) => ({ level: 0, minTxid: 1n, maxTxid: 1n, size, timestampMs: 0 }));
  const MB = 1024 * 1024;
  assert.ok(Superseded.pays(sized(20 * MB, 15 * MB, 15 * MB)));
  assert.ok(!Superseded.pays(sized(20 * MB, 15 * MB)));
  assert.ok(!Superseded.pays(sized(1 * MB, 2 * MB)));
  assert.ok(!Superseded.pays(sized(...Array.from({ length: 100 }, () => MB))));
});
