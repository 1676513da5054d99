/** Replicas that real Litestream wrote, of both encodings of pages, kept in fixtures/ltx. */

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { cp, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { restore } from '../../lib/jobs/restore.js';
import { openFileReplica } from '../../lib/replica/file.js';
import { scratchFolder } from '../support/scratch.js';

for (const name of ['litestream-0.5.17', 'litestream-0.5.5']) {
  test(`${name}: every state comes back as Litestream restored it`, async (t) => {
    const folder = fileURLToPath(new URL(`../../../fixtures/ltx/${name}/`, import.meta.url));
    const states: Record<string, { sha256: string }> = JSON.parse(
      await readFile(join(folder, 'states.json'), 'utf8'),
    );
    const scratch = await scratchFolder(t);
    await cp(folder, join(scratch, 'replica'), { recursive: true });
    // The one file that holds another state than its name says: see fixtures/ltx/README.md.
    const wrong = 'ltx/9/0000000000000001-0000000000000005.ltx';
    if (name === 'litestream-0.5.5') await rm(join(scratch, 'replica', wrong));
    const replica = await openFileReplica(join(scratch, 'replica'));
    const output = join(scratch, 'a.db');
    for (const [txid, { sha256 }] of Object.entries(states)) {
      await restore({ replica, output, txid: BigInt(`0x${txid}`), force: true });
      const found = createHash('sha256')
        .update(await readFile(output))
        .digest('hex');
      assert.equal(found, sha256, `TXID ${txid}`);
    }
  });
}
