/** A file with the highest number there is leaves none for what comes: whoever would put it says so before it does anything. */

import assert from 'node:assert/strict';
import { copyFile, mkdir, readdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { writeAcknowledged } from '../../../lib/jobs/session/acknowledged.js';
import { replicaStateFolder, stateFolder } from '../../../lib/jobs/state-folder.js';
import { assertRefused, jetlite } from '../../cli/run.js';
import { Application } from '../../support/application.js';

const FIRST = '0000000000000001';
const LAST = 'ffffffffffffffff';

test('a replica with a file of the last TXID is refused by that name, and goes on once it is away', async (t) => {
  const app = await Application.inScratchFolder(t);
  if (app === undefined) return;
  await app.open({ pragmas: ['journal_mode = wal'] });
  await app.run('CREATE TABLE t (n)');
  const replica = join(app.folder, 'replica');
  const ltx = join(replica, 'ltx');
  const jobs = [
    ['backup', app.path, replica],
    ['replicate', '--once', app.path, replica],
  ];
  assert.equal((await jetlite(jobs[0]!)).exitCode, 0);
  await mkdir(join(ltx, '1'));
  for (const name of [`0/${LAST}-${LAST}.ltx`, `1/${FIRST}-${LAST}.ltx`]) {
    await copyFile(join(ltx, '0', `${FIRST}-${FIRST}.ltx`), join(ltx, name));
    for (const job of jobs) {
      const run = await jetlite(job);
      assertRefused(run, 1, new RegExp(`no TXID is left above ltx/${name}\n.*take it away`));
      assert.doesNotMatch(run.stderr, /lost/);
    }
    await rename(join(ltx, name), join(app.folder, 'away'));
  }
  assert.deepEqual(await readdir(join(ltx, '0')), [`${FIRST}-${FIRST}.ltx`]);
  await app.run('INSERT INTO t VALUES (1)');
  for (const job of jobs) assert.equal((await jetlite(job)).exitCode, 0);
  assert.equal((await readdir(join(ltx, '0'))).length, 2);

  const state = await replicaStateFolder(stateFolder(app.path), `file://${replica}`);
  await writeAcknowledged(state, 2n ** 64n - 1n);
  for (const job of jobs)
    assertRefused(await jetlite(job), 1, /no TXID is left above f{16}, which .*\n.*Remove that folder/);
  await rm(state, { recursive: true });
  for (const job of jobs) assert.equal((await jetlite(job)).exitCode, 0);
});
