/** Which folder of state belongs to a replica: by what earlier runs recorded, and by nothing that is not believable. */

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { mkdir, readdir, readFile, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { Server } from 'node:net';
import { basename, join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import type { CaptureEvent } from '../../lib/capture/capture.js';
import { writeAcknowledged } from '../../lib/jobs/session/acknowledged.js';
import { claimState, replicaStateFolder } from '../../lib/jobs/state-folder.js';
import { writeRecord } from '../../lib/jobs/state-record.js';
import { scratchFolder } from '../support/scratch.js';

/** A run that got something acknowledged; the folder it used, and what it said. */
async function run(all: string, url: string): Promise<{ folder: string; events: CaptureEvent[] }> {
  const events: CaptureEvent[] = [];
  const { folder, release } = await claimState(all, 'app.db', url, (event) => events.push(event));
  await writeRecord(folder, url);
  await writeAcknowledged(folder, 7n);
  await release();
  return { folder, events };
}

test('a folder moves on with the list of servers and does not come back to a list that it has none in common with', async (t) => {
  const all = await scratchFolder(t);
  const lists = ['a', 'a,b', 'b,c'].map((hosts) => `nats://${hosts}/backups`);
  const { folder } = await run(all, lists[0]!);
  for (const url of lists) assert.equal((await run(all, url)).folder, folder);
  const back = await run(all, lists[0]!);
  assert.notEqual(back.folder, folder, 'it is that of b and c by now, though it is named after a');
  assert.deepEqual(back.events, []);
  assert.equal((await run(all, lists[0]!)).folder, back.folder);
  assert.equal(await replicaStateFolder(all, lists[2]!), folder);
  assert.equal((await readdir(all)).length, 2);
});

test('a folder that somebody took to other servers just before it was claimed is left to them', async (t) => {
  const all = await scratchFolder(t);
  const [a, b] = ['nats://a/backups', 'nats://b/backups'] as [string, string];
  const { folder } = await run(all, a);
  const { listen } = Server.prototype;
  t.mock.method(Server.prototype, 'listen', function (this: Server, ...args: Parameters<typeof listen>) {
    // Between the look at the folders and the claim, for which there is no other moment to come in.
    writeFileSync(join(folder, 'replica'), JSON.stringify({ replica: b }));
    return listen.apply(this, args);
  });
  assert.notEqual((await run(all, a)).folder, folder);
  assert.equal((await run(all, b)).folder, folder);
});

test('of several folders that could be meant, that of the very URL is gone on with, else the one used last', async (t) => {
  const all = await scratchFolder(t);
  const [a, b, both] = ['a', 'b', 'a,b'].map((hosts) => `nats://${hosts}/backups`) as [
    string,
    string,
    string,
  ];
  const older = (await run(all, b)).folder;
  const newer = (await run(all, a)).folder;
  for (const name of await readdir(older)) await utimes(join(older, name), 1000, 1000);
  assert.equal(await replicaStateFolder(all, both), newer);
  assert.equal(await replicaStateFolder(all, b), older);
  // One that holds nothing is no reason to leave the others behind.
  await writeRecord(
    join(
      all,
      basename(newer).replace(/^./, (first) => (first === '0' ? '1' : '0')),
    ),
    both,
  );
  assert.equal(await replicaStateFolder(all, both), newer);
});

test('a record that is not one of ours counts as none', async (t) => {
  const all = await scratchFolder(t);
  const url = 'nats://a:4222/backups';
  const { folder } = await run(all, url);
  const record = join(folder, 'replica');
  assert.equal((await stat(record)).mode & 0o077, 0);
  for (const content of [
    '',
    '{"replica": "nats://a:4222/backups"',
    '{"replica": 7}',
    'null',
    '{"replica": ["nats://b:4222/backups"]}',
    '{"replica": "nats://b:4222/backups\\u001b[2J"}',
    '{"replica": "nats://me:secret@b:4222/backups"}',
    `{"replica": "nats://b:4222/${'x'.repeat(20_000)}"}`,
  ]) {
    await writeFile(record, content);
    // Then it belongs to the URL that it is named after.
    assert.equal(await replicaStateFolder(all, url), folder, content);
    for (const other of ['nats://b:4222/backups', 'nats://a:4222,b:4222/backups']) {
      assert.notEqual(await replicaStateFolder(all, other), folder, content);
    }
  }
  await rm(record);
  await promisify(execFile)('mkfifo', [record]);
  assert.equal(await replicaStateFolder(all, url), folder);
  await rm(record);
  await mkdir(record);
  assert.equal((await run(all, url)).folder, folder, 'and where none can be written, the work goes on');
});

test('a record is written whole, without credentials, over whatever a killed process left', async (t) => {
  const folder = join(await scratchFolder(t), '0123456789abcdef');
  await mkdir(folder);
  await writeFile(join(folder, 'replica'), '{"repl');
  await writeFile(join(folder, `replica.${process.pid}.tmp`), 'x'.repeat(100));
  await writeRecord(folder, 'nats://me:secret@a:4222/backups');
  assert.deepEqual(await readdir(folder), ['replica']);
  assert.doesNotMatch(await readFile(join(folder, 'replica'), 'utf8'), /secret|me:/);
  await writeRecord(folder, 'file:///backups/app@home');
  assert.deepEqual(JSON.parse(await readFile(join(folder, 'replica'), 'utf8')), {
    replica: 'file:///backups/app@home',
  });
});

test('a folder of files that was moved is another replica', async (t) => {
  const all = await scratchFolder(t);
  const { folder } = await run(all, 'file:///backups/app');
  const moved = await run(all, 'file:///elsewhere/app');
  assert.notEqual(moved.folder, folder);
  assert.deepEqual(moved.events, []);
  assert.equal(await replicaStateFolder(all, 'file:///backups/app'), folder);
});
