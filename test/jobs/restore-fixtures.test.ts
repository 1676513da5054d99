/** Kept replicas of both programs restore, at every TXID on offer, to what Litestream restored when they were made. */

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { cp, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { reachableStates } from '../../lib/jobs/plan.js';
import { restore } from '../../lib/jobs/restore.js';
import { formatTxid } from '../../lib/ltx/header.js';
import { openFileReplica } from '../../lib/replica/file.js';
import { scratchFolder } from '../support/scratch.js';

// Seen from dist/test/jobs.
const FIXTURES = fileURLToPath(new URL('../../../fixtures/ltx', import.meta.url));

for (const name of ['jetlite', 'litestream-0.5.17']) {
  test(`${name}: every state on offer restores to the bytes that Litestream restored`, async (t) => {
    const folder = await scratchFolder(t);
    await cp(join(FIXTURES, name, 'ltx'), join(folder, 'replica/ltx'), { recursive: true });
    const expected = JSON.parse(await readFile(join(FIXTURES, name, 'states.json'), 'utf8')) as Record<
      string,
      { bytes: number; sha256: string }
    >;
    const replica = await openFileReplica(join(folder, 'replica'));
    const states = reachableStates(await replica.list()).map(({ txid }) => formatTxid(txid));
    assert.deepEqual(states, Object.keys(expected).sort());
    for (const txid of states) {
      const output = join(folder, 'restored.db');
      await restore({ replica, output, txid: BigInt(`0x${txid}`), force: true });
      const content = await readFile(output);
      const sha256 = createHash('sha256').update(content).digest('hex');
      assert.deepEqual({ bytes: content.length, sha256 }, expected[txid], `TXID ${txid}`);
    }
  });
}
