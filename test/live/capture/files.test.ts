/** Database files that are replaced, cut, deleted, made anew, made late, or may only be read. */
import assert from 'node:assert/strict';
import { chmod, readdir, rename, rm, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { CaptureStage } from '../../support/capture-stage.js';

/** seq goes on above this in a second database, so that one ledger serves both. */
const SECOND_LIFE = 1_000_000;

test('a database replaced by rename, and used on', async (t) => {
  const stage = await CaptureStage.open(t);
  if (!stage) return;
  const first = await stage.writer({ rate: 1000 });
  const replication = await stage.replicate();
  await replication.firstPut();
  await sleep(300);
  const old = await first.stop();

  const other = join(stage.folder, 'source', 'other.db');
  await (await stage.writer({ firstSeq: SECOND_LIFE, seed: 2, commits: 100 }, other)).report();
  await rename(other, stage.database);
  await sleep(300);
  const second = await stage.writer({ rate: 1000, seed: 3 });
  await sleep(300);
  await second.stop();
  await replication.stop();
  const { states } = await stage.prove();
  assert.ok(states.some(({ seq }) => seq <= old.seq) && states.some(({ seq }) => seq > SECOND_LIFE));
});

test('a database replaced by rename while Jetlite does not run', async (t) => {
  const stage = await CaptureStage.open(t);
  if (!stage) return;
  await (await stage.writer({ commits: 100 })).report();
  const replication = await stage.replicate();
  await replication.firstPut();
  await replication.stop();
  const other = join(stage.folder, 'source', 'other.db');
  await (await stage.writer({ firstSeq: SECOND_LIFE, seed: 2, commits: 50 }, other)).report();
  await rename(other, stage.database);
  await (await stage.replicate({ once: true })).result();
  await stage.prove();
});

for (const [how, destroy] of [
  ['cut to nothing', (path: string) => truncate(path, 0)],
  ['deleted', (path: string) => rm(path)],
] as const) {
  test(`a database ${how} and created anew`, async (t) => {
    const stage = await CaptureStage.open(t);
    if (!stage) return;
    const first = await stage.writer({ rate: 1000 });
    const replication = await stage.replicate();
    await replication.firstPut();
    await first.stop();
    await destroy(stage.database);
    await sleep(1500);
    const second = await stage.writer({ rate: 1000, firstSeq: SECOND_LIFE, seed: 2 });
    await sleep(500);
    await second.stop();
    await replication.stop();
    const { states } = await stage.prove();
    assert.ok(states[0]!.seq < SECOND_LIFE);
  });
}

test('a database created only after Jetlite started', async (t) => {
  const stage = await CaptureStage.open(t);
  if (!stage) return;
  const replication = await stage.replicate();
  await sleep(500);
  const writer = await stage.writer({ rate: 1000 });
  await replication.firstPut();
  await sleep(300);
  await writer.stop();
  await replication.stop();
  await stage.prove();
});

test('a folder that Jetlite may only read: state is kept elsewhere, the folder stays as it is', async (t) => {
  const stage = await CaptureStage.open(t);
  if (!stage) return;
  const source = join(stage.folder, 'source');
  const writer = await stage.writer({ rate: 1000 });
  // For root no folder is read-only: Jetlite runs as nobody, and the replica and the state in a folder of nobody's.
  const root = process.getuid?.() === 0;
  await chmod(stage.folder, 0o777);
  await chmod(source, root ? 0o755 : 0o555);
  const through = root ? ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups'] : [];
  const stateDir = join(stage.folder, 'state');
  const replication = await stage.replicate({ stateDir }, through);
  await replication.firstPut();
  await sleep(500);
  assert.deepEqual((await readdir(source)).sort(), ['app.db', 'app.db-shm', 'app.db-wal']);
  await chmod(source, 0o755);
  await writer.stop();
  await replication.stop();
  assert.deepEqual(await readdir(source), ['app.db']);
  await stage.prove();
});
