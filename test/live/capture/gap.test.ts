/** A gap costs one read of the database, and uploads only what changed. */
import assert from 'node:assert/strict';
import { copyFile, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { CaptureStage, LONG } from '../../support/capture-stage.js';
import { ltxPages } from '../../support/replica-pages.js';
import { gapsIn } from '../../support/replication.js';

const PAGE_SIZE = 4096;

/** How many pages of `after` are not the same in `before`. */
async function changedPages(before: string, after: string): Promise<{ changed: number; total: number }> {
  const [a, b] = [await readFile(before), await readFile(after)];
  let changed = 0;
  for (let offset = 0; offset < b.length; offset += PAGE_SIZE) {
    if (!b.subarray(offset, offset + PAGE_SIZE).equals(a.subarray(offset, offset + PAGE_SIZE))) changed++;
  }
  return { changed, total: b.length / PAGE_SIZE };
}

for (const how of ['stopped and started again', 'killed and started again', 'frozen meanwhile'] as const) {
  test(`TRUNCATE checkpoints that Jetlite did not see (${how}) upload only the pages that changed`, async (t) => {
    const stage = await CaptureStage.open(t);
    if (!stage) return;
    const writer = await stage.writer({ paused: true, payload: [300, 900], rows: [100, 1_000_000] });
    for (let part = 0; part < (LONG ? 40 : 4); part++)
      await writer.transaction({ kind: 'insert', rows: 5000 });
    await writer.checkpoint('TRUNCATE');
    let replication = await stage.replicate();
    await replication.firstPut();
    const before = join(stage.folder, 'before.db');
    await copyFile(stage.database, before);
    const known = await ltxPages(stage.replica);

    if (how === 'frozen meanwhile') replication.signal('SIGSTOP');
    else if (how === 'killed and started again') await replication.kill();
    else await replication.stop();
    for (let round = 0; round < 3; round++) {
      await writer.transaction({ kind: 'update', rows: 20 });
      await writer.checkpoint('TRUNCATE');
    }
    const put = how === 'frozen meanwhile' ? replication.nextPut() : undefined;
    if (put) replication.signal('SIGCONT');
    else replication = await stage.replicate();
    await (put ?? replication.firstPut());
    await writer.stop();
    await replication.stop();

    const after = await ltxPages(stage.replica);
    let uploaded = 0;
    for (const [name, pages] of after) if (!known.has(name)) uploaded += pages;
    const { changed, total } = await changedPages(before, stage.database);
    t.diagnostic(
      `${uploaded} pages uploaded, ${changed} of ${total} changed: ${((100 * uploaded) / total).toFixed(2)} % of the database`,
    );
    assert.ok(gapsIn(replication).length > 0 || how !== 'frozen meanwhile');
    assert.ok(changed > 20 && changed < total / 10);
    assert.equal(uploaded, changed);
    await stage.prove();
  });
}
