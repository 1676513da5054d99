/** What a follower does when its replica, or the place of its copy, is not as it should be. */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  existsSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { type TestContext, test } from 'node:test';
import { hasSqlite } from '../../lib/copy/guard.js';
import { backup } from '../../lib/jobs/backup.js';
import { type FollowEvent, type FollowOptions, follow } from '../../lib/jobs/follow.js';
import { DEFAULT_LEVELS, tidy } from '../../lib/jobs/tidy/tidy.js';
import { openFileReplica } from '../../lib/replica/file.js';
import { assertRefused, jetlite, startJetlite } from '../cli/run.js';
import { CopyReaders, CopyStage } from '../support/copy-stage.js';
import { FollowRun } from '../support/follow-run.js';
import { ltxBytes, makeHistory, putLtx, random } from '../support/ltx-history.js';
import { makeBucket, openBucketReplica } from '../support/nats-replica.js';
import { freePort, startNatsServer } from '../support/nats-server.js';
import { peer } from '../support/peers.js';
import { scratchFolder } from '../support/scratch.js';
import { BAD_FILES, CHANGE, SNAPSHOT, snapshot } from './bad-files.js';

async function following(t: TestContext, options: Partial<FollowOptions> = {}) {
  const stage = await CopyStage.open(t);
  if (stage === undefined) return undefined;
  const run = new FollowRun(t, { replica: stage.replica, output: stage.path, ...options });
  await run.sees((event) => event.type === 'following');
  return { stage, run, readers: new CopyReaders(t, stage.path) };
}

const level0 = (stage: CopyStage) => join(stage.source.folder, 'replica', 'ltx', '0');
const nameOf = (txid: number) => {
  const hex = txid.toString(16).padStart(16, '0');
  return `${hex}-${hex}.ltx`;
};

test('a follower that was stopped goes on with its copy and does not restore it anew', async (t) => {
  const made = await following(t);
  if (!made) return;
  const { stage, run, readers } = made;
  await stage.row();
  await run.reaches(2n);
  const first = await run.stop();
  assert.deepEqual([first.restored, first.txid], [true, 2n]);
  await stage.row();
  const again = new FollowRun(t, { replica: stage.replica, output: stage.path });
  await again.reaches(3n);
  assert.equal((await again.stop()).restored, false);
  await readers.open('one');
  assert.equal(await readers.count('one'), 3);
});

test('changes that come fast are gathered, since each batch costs the readers a rebuilt index', async (t) => {
  const stage = await CopyStage.open(t);
  if (stage === undefined) return;
  const replica = await openFileReplica(join(stage.source.folder, 'replica'));
  const appliedMs: number[] = [];
  const stopping = new AbortController();
  let reached = () => {};
  const last = new Promise<void>((resolve) => {
    reached = resolve;
  });
  const ended = follow({
    replica: stage.replica,
    output: stage.path,
    signal: stopping.signal,
    onEvent: ({ type, txid }) => {
      if (type === 'applied') appliedMs.push(performance.now());
      if (txid === 41n) reached();
    },
  });
  t.after(async () => {
    stopping.abort();
    await ended.catch(() => {});
  });
  for (let rows = 0; rows < 40; rows++) {
    await stage.source.run('INSERT INTO t VALUES (NULL, NULL)');
    await backup({ database: stage.source.path, replica });
  }
  await last;
  stopping.abort();
  await ended;
  const pauses = appliedMs.slice(1).map((ms, i) => ms - appliedMs[i]);
  // Nothing here is faster for being measured on a slow machine. A timer may fire a millisecond early.
  assert.ok(
    pauses.every((ms) => ms > 18),
    pauses.join(),
  );
});

test('while there is a hole in the chain the copy stays, says so once, and goes on when it is closed', async (t) => {
  const made = await following(t);
  if (!made) return;
  const { stage, run, readers } = made;
  await run.stop();
  for (let i = 0; i < 3; i++) await stage.row();
  const missing = join(level0(stage), nameOf(3));
  renameSync(missing, `${missing}.away`);
  const again = new FollowRun(t, { replica: stage.replica, output: stage.path });
  const { message } = await again.sees((event) => event.type === 'waiting');
  assert.match(message, /chain of files breaks.*stays at TXID 0000000000000001/);
  await readers.open('one');
  assert.equal(await readers.count('one'), 1);
  renameSync(`${missing}.away`, missing);
  await again.sees((event) => event.type === 'back');
  assert.equal(await readers.count('one'), 4);
  assert.equal(again.events.filter((event) => event.type === 'waiting').length, 1);
});

test('a damaged file leaves the copy at its last whole state', async (t) => {
  const made = await following(t);
  if (!made) return;
  const { stage, run, readers } = made;
  await run.stop();
  await stage.row('zeroblob(100000)');
  const path = join(level0(stage), nameOf(2));
  const sound = readFileSync(path);
  const damaged = Buffer.from(sound);
  damaged[damaged.length - 1] ^= 1;
  rmSync(path);
  writeFileSync(path, damaged);
  const again = new FollowRun(t, { replica: stage.replica, output: stage.path });
  const { message } = await again.sees((event) => event.type === 'waiting');
  assert.match(message, /checksum/);
  await readers.open('one');
  assert.equal(await readers.count('one'), 1);
  writeFileSync(path, sound);
  await again.reaches(2n);
  assert.equal(await readers.count('one'), 2);
});

test('whatever restore refuses in a file, a follower does not take in either', async (t) => {
  const folder = await scratchFolder(t);
  const timestampMs = 1_700_000_000_000;
  const bads = BAD_FILES.filter((bad) => bad.change !== undefined);
  assert.ok(bads.length > 20);
  for (const [i, bad] of bads.entries()) {
    const replica = await openFileReplica(join(folder, `replica-${i}`));
    await replica.write({ ...SNAPSHOT, timestampMs }, () => [snapshot()]);
    const output = join(folder, `copy-${i}.db`);
    const run = new FollowRun(t, { replica, output });
    await run.sees((event) => event.type === 'following');
    const before = readFileSync(output);
    await replica.write({ ...CHANGE, timestampMs }, () => [bad.change!]);
    const refused = await Promise.race([
      run.sees((event) => event.type === 'waiting' || event.type === 'applied'),
      run.ended.catch((error: Error) => error),
    ]);
    assert.match(
      refused instanceof Error ? 'refused' : (refused as FollowEvent).type,
      /^(waiting|refused)$/,
      bad.what,
    );
    await run.stop().catch(() => {});
    assert.deepEqual(readFileSync(output), before, bad.what);
    const wal = existsSync(`${output}-wal`) ? readFileSync(`${output}-wal`) : Buffer.alloc(0);
    // What a commit would end with: the size of the database in the header of some frame.
    for (let at = 32; at + 24 <= wal.length; at += 24 + 512)
      assert.equal(wal.readUInt32BE(at + 4), 0, bad.what);
  }
});

test('files that were merged and removed meanwhile are made up for by a snapshot', async (t) => {
  const made = await following(t);
  if (!made) return;
  const { stage, run, readers } = made;
  await run.stop();
  for (let i = 0; i < 4; i++) await stage.row();
  assert.equal((await jetlite(['compact', join(stage.source.folder, 'replica'), '--snapshot'])).exitCode, 0);
  for (const txid of [2, 3, 4]) rmSync(join(level0(stage), nameOf(txid)));
  const again = new FollowRun(t, { replica: stage.replica, output: stage.path });
  await again.reaches(5n);
  await readers.open('one');
  assert.equal(await readers.count('one'), 5);
});

test('a replica that has lost what the copy has is waited for, and gone on with when it has it again', async (t) => {
  const made = await following(t);
  if (!made) return;
  const { stage, run, readers } = made;
  await stage.row();
  await stage.row();
  await run.reaches(3n);
  await run.stop();
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
  const made = await following(t);
  if (!made) return;
  const { stage, run } = made;
  await stage.row();
  await stage.row();
  await run.reaches(3n);
  await run.stop();
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
    const made = await following(t);
    if (!made) return;
    const { stage, run, readers } = made;
    await stage.row();
    await stage.row();
    await run.reaches(3n);
    await run.stop();
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
    const made = await following(t);
    if (!made) return;
    const { stage, run, readers } = made;
    await stage.row();
    await stage.row();
    await run.reaches(3n);
    await run.stop();
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

test('a damaged file that others lead around does not keep the copy waiting', async (t) => {
  const made = await following(t);
  if (!made) return;
  const { stage, run, readers } = made;
  await run.stop();
  for (let i = 0; i < 4; i++) await stage.row('zeroblob(9000)');
  const settings = { ...DEFAULT_LEVELS, levelIntervalsMs: [600_000] };
  const nowMs = Date.now() + 1_200_000;
  await tidy(stage.replica, { settings, snapshot: 'none', retain: false, nowMs });
  const folder = join(stage.source.folder, 'replica', 'ltx', '1');
  const [name] = readdirSync(folder);
  const bytes = readFileSync(join(folder, name));
  bytes[bytes.length - 1] ^= 1;
  writeFileSync(join(folder, name), bytes);
  const again = new FollowRun(t, { replica: stage.replica, output: stage.path });
  await again.reaches(5n);
  const { message } = await again.sees(({ type }) => type === 'damaged');
  assert.match(message, /^ltx\/1\/.*checksum.*; other files lead to the same state$/);
  await readers.open('one');
  assert.equal(await readers.count('one'), 5);
  assert.ok(!again.events.some(({ type }) => type === 'waiting'));
});

test('pages of another size are not taken in', async (t) => {
  const made = await following(t);
  if (!made) return;
  const { stage, run } = made;
  const other = makeHistory(2, 512, 3, random(1));
  await putLtx(stage.replica, other, 0, 2, 2, ltxBytes(other, 2, 2));
  await assert.rejects(run.ended, { code: 'CONFLICT', message: /expected pages of 4096 bytes.*found 512/ });
});

test('a WAL at its limit ends a follower that cannot empty it, and the copy can be read', async (t) => {
  if (hasSqlite()) return t.skip('this Node brings SQLite');
  const made = await following(t, { maxWalBytes: 20_000 });
  if (!made) return;
  const { stage, run, readers } = made;
  assert.ok(run.events.some((event) => event.type === 'unguarded'));
  const growth = (async () => {
    for (let i = 0; i < 20 && run.events.at(-1)?.txid !== undefined; i++) await stage.row('zeroblob(3000)');
  })();
  await assert.rejects(run.ended, { code: 'OUTPUT', message: /WAL of .* has grown to its limit/ });
  await growth;
  await readers.open('one');
  assert.ok((await readers.count('one')) > 2);
});

for (const node of ['this Node', 'Node 22'] as const) {
  test(`a second follower of the same copy, run by ${node}, is refused, and the first goes on`, async (t) => {
    if (process.platform !== 'linux') return t.skip('only Linux has sockets without a file');
    const program = node === 'Node 22' ? peer(t, 'node22') : process.execPath;
    const made = program && (await following(t));
    if (!made) return;
    const { stage, run } = made;
    const args = ['restore', '-f', stage.replica.url, '-o', stage.path];
    assertRefused(await jetlite(args, { node: program }), 1, /another process follows at/);
    await stage.row();
    await run.reaches(2n);
  });
}

test('restore -f refuses wishes that it cannot keep, and a database that is no copy of its own', async (t) => {
  const stage = await CopyStage.open(t);
  if (stage === undefined) return;
  const replica = join(stage.source.folder, 'replica');
  for (const wish of [['--txid', '1'], ['--timestamp', '2026-01-01T00:00:00Z'], ['--dry-run']]) {
    const run = await jetlite(['restore', '-f', replica, '-o', stage.path, ...wish]);
    assertRefused(run, 2, new RegExp(`--follow and ${wish[0]} cannot be given together`));
  }
  assert.ok(!existsSync(stage.path));
  const run = await jetlite(['restore', '-f', replica, '-o', stage.source.path]);
  assertRefused(run, 1, /the output file .* exists/);
});

test('a copy waits for the folder of its replica by its path as by its URL, and for no other one', async (t) => {
  const stage = await CopyStage.open(t);
  if (stage === undefined) return;
  const folder = join(stage.source.folder, 'replica');
  const args = (replica: string) => ['restore', '-f', replica, '-o', stage.path];
  const first = startJetlite(args(folder));
  await first.shows(/follows/);
  first.child.kill('SIGINT');
  assert.equal((await first.ended).exitCode, 0);
  renameSync(folder, `${folder}-unmounted`);
  assertRefused(await jetlite(args(`${folder}2`)), 1, /copy\.db follows .*replica, not .*replica2/);
  for (const replica of [folder, `file://${folder}`]) {
    const again = startJetlite(args(replica));
    await again.shows(/holds no files any more; .* stays at TXID 0000000000000001/);
    again.child.kill('SIGINT');
    assert.equal((await again.ended).exitCode, 0);
  }
  rmSync(stage.path);
  assertRefused(await jetlite(args(folder)), 2, /neither a replica nor a database with one/);
});

test('while the server is away the copy stays and says so, and catches up when it is back', async (t) => {
  const made = await CopyStage.open(t);
  const server = made && (await startNatsServer(t));
  if (!made || !server) return;
  await makeBucket(server);
  const write = await openBucketReplica(t, server);
  const put = () => backup({ database: made.source.path, replica: write });
  await put();
  const replica = await openBucketReplica(t, server, 'backups', {
    nats: { reconnectWaitMs: 100, timeoutMs: 500 },
  });
  const run = new FollowRun(t, { replica, output: made.path, listIntervalMs: 200 });
  const readers = new CopyReaders(t, made.path);
  await run.sees((event) => event.type === 'following');
  await server.stop();
  const { message } = await run.sees((event) => event.type === 'waiting');
  assert.match(message, /stays at TXID 0000000000000001/);
  await readers.open('one');
  assert.equal(await readers.count('one'), 1);
  await server.restart();
  await run.sees((event) => event.type === 'back');
  await made.source.run('INSERT INTO t VALUES (NULL, NULL)');
  await put();
  await run.reaches(2n);
  assert.equal(await readers.count('one'), 2);
});

test('a server that goes away before there is a copy is waited for, and the copy made when it is back', async (t) => {
  const made = await CopyStage.open(t);
  const server = made && (await startNatsServer(t));
  if (!made || !server) return;
  await makeBucket(server);
  await backup({ database: made.source.path, replica: await openBucketReplica(t, server) });
  const nats = { reconnectWaitMs: 100, timeoutMs: 500 };
  const replica = await openBucketReplica(t, server, 'backups', { nats });
  await server.stop();
  const run = new FollowRun(t, { replica, output: made.path });
  const { message } = await run.sees((event) => event.type === 'waiting');
  assert.match(message, /refused .*; trying again$/);
  await server.restart();
  await run.sees((event) => event.type === 'following');
  const readers = new CopyReaders(t, made.path);
  await readers.open('one');
  assert.equal(await readers.count('one'), 1);
});

test('a copy is gone on with when the URL of its replica is written otherwise, and no other replica is', async (t) => {
  const stage = await CopyStage.open(t);
  const server = stage && (await startNatsServer(t));
  if (!stage || !server) return;
  await makeBucket(server);
  const here = await openBucketReplica(t, server);
  const other = await openBucketReplica(t, server, 'backups/other');
  const elsewhere = `nats://127.0.0.1:${await freePort()},localhost:${server.port}`;
  const respelled = await openBucketReplica(t, { url: elsewhere });
  for (const replica of [here, other]) await backup({ database: stage.source.path, replica });
  const first = new FollowRun(t, { replica: here, output: stage.path });
  await first.reaches(1n);
  await first.stop();
  await stage.source.run('INSERT INTO t VALUES (NULL, NULL)');
  await backup({ database: stage.source.path, replica: here });
  const again = new FollowRun(t, { replica: respelled, output: stage.path });
  await again.reaches(2n);
  assert.equal((await again.stop()).restored, false);
  await assert.rejects(new FollowRun(t, { replica: other, output: stage.path }).ended, {
    code: 'OUTPUT',
    message: `${stage.path} follows ${respelled.url}, not ${other.url}`,
  });
});

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
