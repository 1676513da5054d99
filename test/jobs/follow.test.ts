/** What a follower does when its replica, or the place of its copy, is not as it should be. */

import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { test } from 'node:test';
import { hasSqlite } from '../../lib/copy/guard.js';
import { backup } from '../../lib/jobs/backup.js';
import { type FollowEvent, follow } from '../../lib/jobs/follow.js';
import { DEFAULT_LEVELS, tidy } from '../../lib/jobs/tidy/tidy.js';
import { openFileReplica } from '../../lib/replica/file.js';
import { assertRefused, jetlite, startJetlite } from '../cli/run.js';
import { CopyStage } from '../support/copy-stage.js';
import { FollowRun } from '../support/follow-run.js';
import { following, level0, nameOf } from '../support/follow-stage.js';
import { ltxBytes, makeHistory, putLtx, random } from '../support/ltx-history.js';
import { peer } from '../support/peers.js';
import { scratchFolder } from '../support/scratch.js';
import { BAD_FILES, CHANGE, SNAPSHOT, snapshot } from './bad-files.js';

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
