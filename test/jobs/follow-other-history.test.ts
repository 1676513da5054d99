/** What a follower does when its replica has another history than its copy, or the copy has one of its own. */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync, renameSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { backup } from '../../lib/jobs/backup.js';
import { DEFAULT_LEVELS, tidy } from '../../lib/jobs/tidy/tidy.js';
import { openFileReplica } from '../../lib/replica/file.js';
import { CopyReaders, CopyStage } from '../support/copy-stage.js';
import { FollowRun } from '../support/follow-run.js';
import { followedTwoRows, following, level0, nameOf } from '../support/follow-stage.js';

test('a replica that has lost what the copy has is waited for, and gone on with when it has it again', async (t) => {
  const made = await followedTwoRows(t);
  if (!made) return;
  const { stage, readers } = made;
  const [lost, later] = [3, 4].map((txid) => join(level0(stage), nameOf(txid)));
  await stage.row();
  for (const path of [lost, later]) renameSync(path, `${path}.away`);
  const again = new FollowRun(t, { replica: stage.replica, output: stage.path });
  const { message } = await again.sees(({ type }) => type === 'waiting');
  assert.match(message, /does not hold TXID 0000000000000003 any more, nor a later one/);
  await readers.open('one');
  assert.equal(await readers.count('one'), 3);
  for (const path of [lost, later]) renameSync(`${path}.away`, path);
  await again.reaches(4n);
  assert.equal(await readers.count('one'), 4);
  assert.equal(again.events.filter(({ type }) => type === 'waiting').length, 1);
});

test('a damaged page of a replica that is behind does not make it another database', async (t) => {
  const made = await followedTwoRows(t);
  if (!made) return;
  const { stage } = made;
  const [lost, sound] = [3, 2].map((txid) => join(level0(stage), nameOf(txid)));
  renameSync(lost, `${lost}.away`);
  let renamed = 0;
  for (const path of [join(level0(stage), nameOf(1)), sound]) {
    const bytes = readFileSync(path);
    // The names of the table in its row of the schema, one letter further.
    for (let at = bytes.indexOf('tablett'); at >= 0; at = bytes.indexOf('tablett', at + 1)) {
      bytes[at + 5] ^= 1;
      renamed++;
    }
    writeFileSync(path, bytes);
  }
  assert.ok(renamed > 0);
  utimesSync(join(level0(stage), nameOf(1)), 1, 1);
  const again = new FollowRun(t, { replica: stage.replica, output: stage.path });
  const { message } = await again.sees(({ type }) => type === 'waiting');
  assert.match(message, /does not hold TXID 0000000000000003 any more/);
});

test('where other states have come under numbers that were lost, the first later one is taken whole', async (t) => {
  const made = await following(t);
  if (!made) return;
  const { stage, run, readers } = made;
  for (let i = 0; i < 3; i++) await stage.row('zeroblob(9000)');
  await run.reaches(4n);
  await run.stop();
  // The writer has lost its own memory, too: it gives the numbers 3 and 4 again.
  for (const txid of [3, 4]) rmSync(join(level0(stage), nameOf(txid)));
  rmSync(join(stage.source.folder, '.app.db-jetlite'), { recursive: true });
  const replica = await openFileReplica(join(stage.source.folder, 'replica'));
  const step = async (sql: string): Promise<void> => {
    await stage.source.run(sql);
    await backup({ database: stage.source.path, replica });
  };
  await step('UPDATE t SET filler = zeroblob(5) WHERE n = 2');
  await step('UPDATE t SET filler = zeroblob(5) WHERE n = 3');
  const again = new FollowRun(t, { replica, output: stage.path });
  const { message } = await again.sees(({ type }) => type === 'waiting');
  assert.match(message, /does not hold TXID 0000000000000004 any more/);
  await step('UPDATE t SET filler = zeroblob(5) WHERE n = 4');
  await again.reaches(5n);
  await readers.open('one');
  assert.equal(await readers.count('one'), 4);
  assert.deepEqual(await readers.run('one', 'SELECT sum(length(filler)) FROM t'), [[15]]);
});

for (const when of ['longer', 'shorter'] as const) {
  test(`a replica that was begun anew and is ${when} than before ends following and leaves the copy`, async (t) => {
    const made = await followedTwoRows(t);
    if (!made) return;
    const { stage, readers } = made;
    rmSync(join(stage.source.folder, 'replica'), { recursive: true });
    rmSync(join(stage.source.folder, '.app.db-jetlite'), { recursive: true });
    const replica = await openFileReplica(join(stage.source.folder, 'replica'));
    for (let txid = 1; txid <= (when === 'longer' ? 5 : 2); txid++) {
      await stage.source.run('INSERT INTO t VALUES (NULL, NULL)');
      await backup({ database: stage.source.path, replica });
    }
    const anew = new FollowRun(t, { replica, output: stage.path });
    await assert.rejects(anew.ended, { code: 'CONFLICT', message: /begun anew/ });
    await readers.open('one');
    assert.equal(await readers.count('one'), 3);
  });

  test(`the replica of another database in its place, ${when} than it, ends following and leaves the copy`, async (t) => {
    // Older than the copy: its times do not show that it is another one.
    const other = await CopyStage.open(t);
    if (other === undefined) return;
    await other.step('DROP TABLE t', 'CREATE TABLE reading (x)');
    for (let i = when === 'longer' ? 6 : 2; i > 2; i--) await other.step('INSERT INTO reading VALUES (1)');
    const made = await followedTwoRows(t);
    if (!made) return;
    const { stage, readers } = made;
    const place = join(stage.source.folder, 'replica');
    rmSync(place, { recursive: true });
    renameSync(join(other.source.folder, 'replica'), place);
    const anew = new FollowRun(t, { replica: await openFileReplica(place), output: stage.path });
    const found = /another database by now: .*found the tables "t" here and "reading" there/;
    await assert.rejects(anew.ended, { code: 'CONFLICT', message: found });
    await readers.open('one');
    assert.equal(await readers.count('one'), 3);
  });
}

/** A write by another program, which checkpoints and removes the WAL when it closes. */
function localWrite(path: string): void {
  const sql = 'CREATE TABLE own (x); INSERT INTO own VALUES (zeroblob(40000))';
  execFileSync('python3', ['-c', LOCAL_WRITE, path, sql]);
}

const LOCAL_WRITE =
  'import sqlite3, sys; c = sqlite3.connect(sys.argv[1], timeout=10); c.executescript(sys.argv[2]); c.close()';

for (const when of [
  'while it is followed',
  'while it is not, its WAL full',
  'while it is not, its WAL empty',
]) {
  test(`a local write that is checkpointed at once, ${when}, never becomes part of the copy`, async (t) => {
    const made = await following(t);
    if (!made) return;
    const { stage, run } = made;
    let { readers } = made;
    if (!when.endsWith('empty')) {
      await stage.row();
      await run.reaches(2n);
    }
    let after = run;
    if (when.startsWith('while it is not')) await run.stop();
    localWrite(stage.path);
    await stage.row();
    if (when.startsWith('while it is not'))
      after = new FollowRun(t, { replica: stage.replica, output: stage.path });
    const newest = when.endsWith('empty') ? 2n : 3n;
    const outcome = await Promise.race([
      after.reaches(newest).then(() => 'went on'),
      after.ended.catch((error: Error) => error),
    ]);
    if (outcome instanceof Error) return assert.match(outcome.message, /another program has written/);
    readers = new CopyReaders(t, stage.path);
    await readers.open('one');
    assert.equal(await readers.count('one'), Number(newest), 'sound, and nothing but the replica');
    await assert.rejects(readers.run('one', 'SELECT * FROM own'), /no such table/);
  });
}

test('a replica begun anew, whose merged files hide it, does not become mixed with what the copy had', async (t) => {
  const made = await following(t);
  if (!made) return;
  const { stage, run, readers } = made;
  for (let i = 0; i < 9; i++) await stage.source.run('INSERT INTO t (filler) VALUES (zeroblob(3000))');
  await stage.row();
  await stage.row();
  await run.reaches(3n);
  await run.stop();
  const { folder } = stage.source;
  for (const name of readdirSync(folder)) {
    if (name === 'replica' || (name.endsWith('-jetlite') && !name.includes('copy'))) {
      rmSync(join(folder, name), { recursive: true });
    }
  }
  const replica = await openFileReplica(join(folder, 'replica'));
  const step = async (sql: string): Promise<void> => {
    await stage.source.run(sql);
    await backup({ database: stage.source.path, replica });
  };
  await step('DELETE FROM t WHERE n % 2 = 0');
  await tidy(replica, { snapshot: 'now', retain: false });
  await step('CREATE TABLE u (x)');
  for (let i = 0; i < 4; i++) await step('INSERT INTO u VALUES (1)');
  const settings = { ...DEFAULT_LEVELS, levelIntervalsMs: [600_000] };
  await tidy(replica, { settings, snapshot: 'none', nowMs: Date.now() + 1_200_000 });
  assert.ok(
    (await replica.list(0)).every(({ maxTxid }) => maxTxid > 3n),
    'level 0 is thinned out',
  );
  const again = new FollowRun(t, { replica, output: stage.path });
  await Promise.race([again.reaches(6n), again.ended.catch(() => undefined)]);
  await readers.open('one');
  const [[even]] = (await readers.run('one', 'SELECT count(*) FROM t WHERE n % 2 = 0')) as number[][];
  const tables = (await readers.run(
    'one',
    "SELECT count(*) FROM sqlite_master WHERE name = 'u'",
  )) as number[][];
  assert.equal(
    tables[0][0] === 1 && even > 0,
    false,
    'rows of the old history beside a table of the new one',
  );
});
