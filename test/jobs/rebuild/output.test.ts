import assert from 'node:assert/strict';
import { mkdir, readdir, stat, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { restore } from '../../../lib/jobs/restore.js';
import { openFileReplica } from '../../../lib/replica/file.js';
import type { LtxFileInfo, Replica } from '../../../lib/replica/replica.js';
import { makeHistory, putLtx, random } from '../../support/ltx-history.js';
import { scratchFolder } from '../../support/scratch.js';

/** A replica of one file, and where its database is to go. */
async function place(t: { after(done: () => Promise<void>): void }) {
  const folder = await scratchFolder(t);
  await mkdir(join(folder, 'out'));
  const replica = await openFileReplica(join(folder, 'replica'));
  await putLtx(replica, makeHistory(1, 1024, 6, random(9)), 9, 1, 1);
  return { output: join(folder, 'out', 'restored.db'), replica };
}

test('what a killed restore of the same database left is removed, what may be in use or is another’s is kept', async (t) => {
  const { output, replica } = await place(t);
  const leftovers = {
    '.restored.db.0123456789abcdef.tmp': 20,
    '.restored.db.fedcba9876543210.tmp': 2,
    '.other.db.0123456789abcdef.tmp': 20,
    '.restored.db.mine.tmp': 20,
    'restored.db.0123456789abcdef.tmp': 20,
  };
  for (const [name, minutes] of Object.entries(leftovers)) {
    const path = join(output, '..', name);
    await writeFile(path, 'left');
    const at = new Date(Date.now() - minutes * 60_000);
    await utimes(path, at, at);
  }
  await restore({ replica, output });
  const expected = ['restored.db', ...Object.keys(leftovers).slice(1)];
  assert.deepEqual((await readdir(join(output, '..'))).sort(), expected.sort());
});

test('a restore that waits long for its replica shows that its file is in use', async (t) => {
  const { output, replica } = await place(t);
  t.mock.timers.enable({ apis: ['setInterval'] });
  let touched = false;
  const waiting: Replica = Object.create(replica, {
    read: {
      value: async function* (file: LtxFileInfo) {
        const [name] = await readdir(join(output, '..'));
        const path = join(output, '..', name);
        await utimes(path, 1, 1);
        t.mock.timers.tick(60_000);
        while ((await stat(path)).mtimeMs === 1000);
        touched = true;
        yield* replica.read(file);
      },
    },
    list: { value: () => replica.list() },
  });
  await restore({ replica: waiting, output });
  assert.ok(touched);
  assert.deepEqual(await readdir(join(output, '..')), ['restored.db']);
});
