/** Folders where none can be made, and folders that several make at the same time. */
import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { makeFolderSync, makeFolders } from '../lib/make-folder.js';
import { assertRefused, startJetlite } from './cli/run.js';
import { Application } from './support/application.js';
import { scratchFolder } from './support/scratch.js';

test('every missing folder is made, by several at the same time too, and what is there stays', async (t) => {
  const folder = await scratchFolder(t);
  const deep = join(folder, 'a', 'b', 'c');
  const made = await Promise.all(Array.from({ length: 8 }, () => makeFolders(deep)));
  assert.deepEqual(made.flat().sort(), [join(folder, 'a'), join(folder, 'a', 'b'), deep]);
  assert.deepEqual(await makeFolders(deep), []);
  makeFolderSync(join(deep, 'd', 'e'));
  makeFolderSync(join(deep, 'd', 'e'));
  assert.equal(statSync(join(deep, 'd')).mode & 0o777, 0o700);
  assert.deepEqual(readdirSync(deep), ['d']);
});

test('a file, a link that leads nowhere and one to a folder in the way are told from a folder', async (t) => {
  const folder = await scratchFolder(t);
  writeFileSync(join(folder, 'file'), '');
  symlinkSync(join(folder, 'gone'), join(folder, 'dangling'));
  mkdirSync(join(folder, 'real'));
  symlinkSync(join(folder, 'real'), join(folder, 'link'));
  for (const [path, code] of [
    ['file', 'EEXIST'],
    ['file/x', 'ENOTDIR'],
    ['dangling', 'EEXIST'],
  ]) {
    await assert.rejects(makeFolders(join(folder, path)), { code });
    assert.throws(() => makeFolderSync(join(folder, path)), { code });
  }
  assert.deepEqual(await makeFolders(join(folder, 'link', 'x')), [join(folder, 'link', 'x')]);
  makeFolderSync(join(folder, 'link'));
});

test('where the system makes no folder the program says so, instead of trying for ever', async (t) => {
  if (process.platform !== 'linux') return t.skip('only Linux has /proc');
  const app = await Application.inScratchFolder(t);
  if (!app) return;
  await app.open({ pragmas: ['journal_mode=wal'] });
  await app.run('CREATE TABLE t(x)');
  const folder = await scratchFolder(t);
  const replica = join(folder, 'replica');
  const run = (...args: string[]) => {
    const { child, ended } = startJetlite(args);
    // Who makes folders for ever hears no other signal.
    const timer = setTimeout(() => child.kill('SIGKILL'), 60_000);
    return ended.finally(() => clearTimeout(timer));
  };
  const unremembered = await run('backup', app.path, replica, '--state-dir', '/proc/none');
  assert.equal(unremembered.exitCode, 0, unremembered.stderr);
  assert.match(unremembered.stderr, /\/proc\/none.* cannot be written \(ENOENT\)/);
  assertRefused(await run('backup', app.path, '/proc/none/replica'), 1, /cannot write .*its folder is gone/);
  const output = await run('restore', replica, '-o', '/proc/none/app.db');
  assertRefused(output, 1, /cannot write \/proc\/none\/app\.db: its folder cannot be made/);
});
