/**
 * Behind the last commit of a WAL may stand frames that belong to none: a transaction that outgrew its cache and was
 * rolled back leaves them, with salts and checksums like any other, and a restart leaves them as they are. Whoever looks
 * behind the last commit for one that is still missing comes upon them.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Application } from '../../support/application.js';
import { CapturedCopy } from '../../support/captured-copy.js';
import { haltedAtWal } from '../../support/hindered-writers.js';
import { parseWal, readIndex } from '../../support/wal-files.js';

const PRAGMAS = [
  'page_size=1024',
  'journal_mode=wal',
  'wal_autocheckpoint=0',
  'synchronous=off',
  'cache_size=5',
];
/** One commit that writes a page as it was. */
const UNCHANGED = [
  'BEGIN',
  'UPDATE t SET n = n + 1 WHERE id = 1',
  'UPDATE t SET n = n - 1 WHERE id = 1',
  'COMMIT',
];

for (const fileEvents of [true, false]) {
  const how = fileEvents ? 'with file events' : 'by the clock';

  test(`frames that were rolled back behind a commit that changed nothing are not taken, ${how}`, async (t) => {
    const app = await Application.inScratchFolder(t);
    if (!app) return;
    await app.open({ pragmas: PRAGMAS });
    await app.run('CREATE TABLE t(id INTEGER PRIMARY KEY, n, x)');
    for (let id = 1; id <= 40; id++) await app.run(`INSERT INTO t VALUES (${id}, 50, zeroblob(400))`);
    const writer = haltedAtWal(t, app.path);
    if (!writer) return;
    await writer.open({ pragmas: ['synchronous=off'] });
    await writer.run('SELECT count(*) FROM t');
    const copy = CapturedCopy.of(t, app.path, { fileEvents });
    await sleep(40);
    await copy.catchUp();
    await app.run('UPDATE t SET n = n + 1 WHERE id = 1', ...UNCHANGED);
    const { maxFrame } = readIndex(`${app.path}-shm`);
    await app.run('BEGIN', 'UPDATE t SET x = randomblob(400)', 'ROLLBACK', 'PRAGMA wal_checkpoint(PASSIVE)');
    assert.ok(parseWal(readFileSync(`${app.path}-wal`)).frames.length > maxFrame, 'pages have spilled');
    const written = writer.run('UPDATE t SET n = n + 1 WHERE id = 1');
    // The restart is published, and the WAL as it was.
    while (readIndex(`${app.path}-shm`).maxFrame > 0) await sleep(5);
    await copy.catchUp();
    await copy.assertEquals(app);
    await written;
    await copy.catchUp();
    await copy.assertEquals(app);
    assert.deepEqual(copy.gaps, []);
  });
}
