/**
 * Jetlite inside an application that has the database open itself. Node cannot take POSIX locks, so the library that
 * holds some in the same process is played by a preloaded one (test/support/posix-lock.c).
 */

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Capture } from '../../lib/capture/capture.js';
import { JetliteError } from '../../lib/errors.js';
import { replicateInChild } from '../../lib/jobs/replicate-child.js';
import { restore } from '../../lib/jobs/restore.js';
import { openReplica } from '../../lib/replica/open.js';
import { CaptureStage } from '../support/capture-stage.js';
import { firstDifference } from '../support/oracle/check.js';

/** The descriptors of this process that are open on a file. */
function descriptorsOf(file: string): string[] {
  return fs.readdirSync('/proc/self/fd').filter((fd) => {
    try {
      return fs.readlinkSync(`/proc/self/fd/${fd}`) === file;
    } catch {
      return false;
    }
  });
}

test('while capture runs, no descriptor of a file that has a name is ever closed', {
  skip: !fs.existsSync('/proc/self/fd'),
}, async (t) => {
  const stage = await CaptureStage.open(t);
  if (stage === undefined) return;
  const writer = await stage.writer({ paused: true, sizes: [[1, 1, 20]] });
  const capture = Capture.open({ database: stage.database, scratchDir: stage.folder });
  t.after(() => capture.close());
  const files = ['', '-wal', '-shm'].map((suffix) => stage.database + suffix);
  await capture.poll();
  const first = files.map(descriptorsOf);
  assert.deepEqual(
    first.map((open) => open.length),
    [1, 1, 1],
  );
  for (const command of [
    'step 20',
    'checkpoint TRUNCATE other',
    'step 5',
    'vacuum',
    'checkpoint RESTART',
    'step 3',
  ]) {
    await writer.command(command);
    while ((await capture.poll()) === 'wait') await capture.wait(5);
    capture.take();
    assert.deepEqual(files.map(descriptorsOf), first, `after ${command}`);
  }
  await writer.stop();
});

test('a lock that the application holds is still there after Jetlite ran in its process', async (t) => {
  if (process.platform !== 'linux' || spawnSync('cc', ['--version']).status !== 0) {
    t.skip('there is no C compiler here to make a library that holds a lock');
    return;
  }
  const stage = await CaptureStage.open(t);
  if (stage === undefined) return;
  const library = join(stage.folder, 'posix-lock.so');
  const source = fileURLToPath(new URL('../../../test/support/posix-lock.c', import.meta.url));
  assert.equal(spawnSync('cc', ['-shared', '-fPIC', '-o', library, source]).status, 0);
  await (await stage.writer({ commits: 20 })).report();
  const run = (script: string): string => {
    const env = { ...process.env, LD_PRELOAD: library, JETLITE_LOCK_FILE: stage.database };
    const { stdout, stderr, status } = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
      env,
      encoding: 'utf8',
    });
    assert.equal(status, 0, stderr);
    return stdout;
  };
  const database = JSON.stringify(stage.database);
  const seen = `
    import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
    const ino = fs.statSync(${database}).ino;
    const held = () => fs.readFileSync('/proc/locks', 'latin1').includes(':' + ino + ' 1073741826 ');
    if (!held()) throw new Error('no lock from the start');`;
  assert.equal(run(`${seen} fs.closeSync(fs.openSync(${database})); console.log(held());`), 'false\n');
  const module = (path: string): string => JSON.stringify(new URL(`../../lib/${path}`, import.meta.url).href);
  const afterBackups = run(`${seen}
    import { backup } from ${module('jobs/backup.js')};
    import { openReplica } from ${module('replica/open.js')};
    const replica = await openReplica(${JSON.stringify(stage.replica)});
    await backup({ database: ${database}, replica });
    await backup({ database: ${database}, replica });
    await replica.close();
    console.log(held());`);
  assert.equal(afterBackups, 'true\n');
});

test('a child process replicates for its parent, and what it says is what replicate says', async (t) => {
  const stage = await CaptureStage.open(t);
  if (stage === undefined) return;
  const writer = await stage.writer({ rate: 200 });
  const stop = new AbortController();
  const seen = new Set<string>();
  let child = 0;
  const replicated = replicateInChild(
    {
      database: stage.database,
      replica: stage.replica,
      signal: stop.signal,
      onEvent: ({ type }) => seen.add(type),
    },
    (pid) => {
      child = pid;
    },
  );
  while (!seen.has('put')) await delay(20);
  assert.deepEqual(descriptorsOf(stage.database), [], 'the parent has opened nothing');
  assert.notEqual(child, process.pid);
  await delay(300);
  await writer.stop();
  stop.abort();
  const { txid, files } = await replicated;
  assert.ok(txid >= 1n && files >= 1);
  const output = join(stage.folder, 'restored.db');
  const replica = await openReplica(stage.replica);
  await restore({ replica, output });
  await replica.close();
  assert.equal(await firstDifference(stage.database, output), undefined);
});

test('what a child cannot do is the same error as in this process', async (t) => {
  const stage = await CaptureStage.open(t);
  if (stage === undefined) return;
  fs.writeFileSync(
    stage.database,
    'not a database at all, but long enough to have a header of one hundred bytes, and more',
  );
  await assert.rejects(
    replicateInChild({ database: stage.database, replica: stage.replica }),
    (error) =>
      error instanceof JetliteError && error.code === 'FORMAT' && error.message.includes(stage.database),
  );
});
