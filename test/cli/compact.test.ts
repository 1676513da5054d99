import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { openFileReplica } from '../../lib/replica/file.js';
import { makeHistory, putLtx, random, timeOf } from '../support/ltx-history.js';
import { scratchFolder } from '../support/scratch.js';
import { sqliteShell } from '../support/sqlite.js';
import { assertRefused, jetlite } from './run.js';

/** A replica of 30 states, one a second, long ago. */
async function oldReplica(t: { after(done: () => Promise<void>): void }) {
  const folder = join(await scratchFolder(t), 'replica');
  const replica = await openFileReplica(folder);
  const history = makeHistory(30, 512, 8, random(7));
  for (let txid = 1; txid <= 30; txid++) await putLtx(replica, history, 0, txid, txid);
  return { folder, replica, history };
}

test('compact merges what is due, removes nothing unless told to, and then finds nothing to do', async (t) => {
  const { folder, replica } = await oldReplica(t);
  const first = await jetlite(['compact', folder, '--json']);
  assert.equal(first.exitCode, 0, first.stderr);
  const { kind, merged, removed } = JSON.parse(first.stdout);
  assert.equal(kind, 'done');
  assert.deepEqual(removed, []);
  // The history crosses one end of 30 seconds.
  assert.deepEqual(
    merged.map(({ level }: { level: number }) => level),
    [9, 1, 1, 2, 3],
  );
  assert.equal((await replica.list(0)).length, 30);
  const second = await jetlite(['compact', folder]);
  assert.match(second.stdout, /nothing to do\n$/);
  const third = await jetlite(['compact', '-retain', folder]);
  assert.match(third.stdout, /: \d+ removed\n$/);
  assert.deepEqual(
    (await replica.list(0)).map(({ maxTxid }) => maxTxid),
    [30n],
  );
});

test('compact goes by the configuration’s levels and retention', async (t) => {
  const { folder, replica } = await oldReplica(t);
  const config = join(folder, '..', 'jetlite.yml');
  await writeFile(
    config,
    `levels: [{interval: 5s}]\nretention: {enabled: false}\ndbs:\n- {path: /a.db, replica: {path: ${folder}}}\n`,
  );
  for (const source of ['/a.db', `file://${folder}`]) {
    const run = await jetlite(['compact', source, '--config', config, '--retain']);
    assert.equal(run.exitCode, 0, run.stderr);
  }
  const files = await replica.list();
  assert.equal(files.filter(({ level }) => level === 1).length, 6 + (timeOf(1) % 5000 === 0 ? 0 : 1));
  assert.equal(files.filter(({ level }) => level === 0).length, 30);
  assert.equal(files.filter(({ level }) => level === 2).length, 0);
});

test('compact keeps what a database keeps for a time of its own, whichever way its replica is named', async (t) => {
  const { folder, replica } = await oldReplica(t);
  const config = join(folder, '..', 'jetlite.yml');
  await writeFile(
    config,
    `snapshot: {interval: 1s, retention: 2s}\nl0-retention: 1s\ndbs:\n- {path: /a.db, snapshot: {retention: 1000000h}, replica: {path: ${folder}}}\n`,
  );
  for (const source of ['/a.db', folder, `file://${folder}`]) {
    const run = await jetlite(['compact', source, '--config', config, '--retain']);
    assert.equal(run.exitCode, 0, run.stderr);
    // The first state is promised for a hundred years.
    assert.ok(
      (await replica.list()).some(({ minTxid, maxTxid }) => minTxid === 1n && maxTxid === 1n),
      source,
    );
  }
  const other = await jetlite(['compact', join(folder, '..'), '--config', config, '--retain']);
  assertRefused(other, 2, /does not name .*retention of their own/);
});

test('compact --snapshot makes one of the newest state, and says whose lease keeps it from that', async (t) => {
  const { folder, replica, history } = await oldReplica(t);
  await jetlite(['compact', folder]);
  const history31 = { ...history, states: [...history.states, history.states[12]] };
  await putLtx(replica, history31, 0, 31, 31);
  await replica.writeExtra('lease', Buffer.from('{"holder":"somebody (process 1)","nonce":"x"}'));
  const busy = await jetlite(['compact', folder, '--snapshot']);
  assert.equal(busy.exitCode, 1);
  assert.match(busy.stderr, /somebody \(process 1\) is merging files of file:/);
  const passing = await jetlite(['compact', folder, '--json']);
  assert.equal(passing.exitCode, 0);
  assert.equal(JSON.parse(passing.stdout).kind, 'busy');
  await replica.removeExtra('lease');
  const run = await jetlite(['compact', folder, '--snapshot']);
  assert.equal(run.exitCode, 0, run.stderr);
  assert.match(run.stdout, /a snapshot of/);
  const newest = (await replica.list(9)).at(-1)!;
  assert.equal(newest.maxTxid, 31n);
});

test('compact tells of a damaged file, does the rest, and fails', async (t) => {
  const { folder, replica } = await oldReplica(t);
  const path = join(folder, 'ltx/0/0000000000000005-0000000000000005.ltx');
  await writeFile(path, 'damaged');
  const run = await jetlite(['compact', folder]);
  assert.equal(run.exitCode, 1);
  assert.match(run.stderr, /ltx\/0\/0{15}5-0{15}5\.ltx/);
  assert.match(run.stderr, /level 1 cannot go on|there is no|chain/);
  assert.equal((await replica.list(0)).length, 30);
});

test('replicate --once makes a snapshot and removes files when told to, and only with --once', async (t) => {
  const shell = sqliteShell(t);
  if (shell === undefined) return;
  const folder = await scratchFolder(t);
  const database = join(folder, 'a.db');
  const place = join(folder, 'replica');
  await shell.run(database, 'PRAGMA journal_mode = WAL; CREATE TABLE t(x); INSERT INTO t VALUES (1);');
  for (const flag of ['--force-snapshot', '--enforce-retention']) {
    assertRefused(await jetlite(['replicate', flag, database, place]), 2, /need --once/);
  }
  await jetlite(['replicate', '-once', database, place]);
  await shell.run(database, 'INSERT INTO t VALUES (2);');
  const run = await jetlite(['replicate', '-once', '-force-snapshot', '-enforce-retention', database, place]);
  assert.equal(run.exitCode, 0, run.stderr);
  const replica = await openFileReplica(place);
  assert.deepEqual(
    (await replica.list(9)).map(({ minTxid, maxTxid }) => [minTxid, maxTxid]),
    [[1n, 2n]],
  );
});
