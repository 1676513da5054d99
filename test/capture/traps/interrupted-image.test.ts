/** An image that was begun and not ended has proven nothing: nobody goes on from where it was interrupted. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Application } from '../../support/application.js';
import { CapturedCopy } from '../../support/captured-copy.js';

const PRAGMAS = ['journal_mode=wal', 'wal_autocheckpoint=0', 'synchronous=off'];
const TRUNCATE = 'PRAGMA wal_checkpoint(TRUNCATE)';

test('a program that starts again after an image was interrupted takes another', async (t) => {
  const app = await Application.inScratchFolder(t);
  if (!app) return;
  await app.open({ pragmas: PRAGMAS });
  await app.run('CREATE TABLE t(x)', 'CREATE TABLE u(x)', 'INSERT INTO t VALUES (1)');
  let interrupts = false;
  const onProgress = (): void => {
    if (interrupts) throw new Error('interrupted');
  };
  const copy = CapturedCopy.of(t, app.path, { onProgress });
  await copy.catchUp();
  await app.run('INSERT INTO t VALUES (2)', TRUNCATE, 'INSERT INTO t VALUES (3)', TRUNCATE);
  await app.run('INSERT INTO u VALUES (4)');
  interrupts = true;
  await assert.rejects(copy.capture.poll(), { message: 'interrupted' });
  interrupts = false;
  assert.equal(copy.gaps.length, 1);
  const again = copy.restarted(t);
  await again.catchUp();
  await again.assertEquals(app);
});
