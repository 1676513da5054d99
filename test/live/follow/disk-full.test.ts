/** A live copy on a disk that is full for a while. */

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { startJetlite } from '../../cli/run.js';
import { CopyReaders, CopyStage } from '../../support/copy-stage.js';

/** Stands in for Node: the program runs where a small file system is mounted that nobody else sees. */
const SMALL_DISK = `#!/bin/sh
exec unshare -Urm sh -c 'mount -t tmpfs -o size=2m tmpfs "$0" && exec "$@"' "$SMALL_DISK" "$NODE" "$@"
`;

test('on a full disk a copy stays as it is and can be read, and goes on when there is room', async (t) => {
  const probe = spawnSync('unshare', ['-Urm', 'mount', '-t', 'tmpfs', 'tmpfs', '/mnt']);
  if (probe.status !== 0) return t.skip('no small file system can be made here');
  const stage = await CopyStage.open(t);
  if (stage === undefined) return;
  const { folder } = stage.source;
  const disk = join(folder, 'disk');
  mkdirSync(disk);
  const wrapper = join(folder, 'node');
  writeFileSync(wrapper, SMALL_DISK, { mode: 0o755 });
  const args = ['restore', stage.replica.url, '-o', join(disk, 'copy.db'), '-f', '--log-level', 'debug'];
  const env = { SMALL_DISK: disk, NODE: process.execPath };
  const follower = startJetlite(args, { node: wrapper, env });
  t.after(() => follower.child.kill('SIGKILL'));
  await follower.shows(/ follows /);
  await stage.row();
  await follower.shows(/stands at TXID 0000000000000002/);
  // The same folder as the follower sees it.
  const inside = `/proc/${follower.child.pid}/root${disk}`;
  writeFileSync(join(inside, 'filler'), new Uint8Array(1_600_000));
  await stage.row('randomblob(1000000)');
  await follower.shows(/WARN .*copy\.db: the disk is full; .* stays at TXID 0000000000000002/);
  const look = async (name: string): Promise<number> => {
    const path = join(folder, name);
    for (const part of ['', '-wal']) copyFileSync(join(inside, `copy.db${part}`), path + part);
    const readers = new CopyReaders(t, path);
    await readers.open('one');
    return readers.count('one');
  };
  assert.equal(await look('full.db'), 2);
  rmSync(join(inside, 'filler'));
  await follower.shows(/follows again and stands at TXID 0000000000000003/);
  assert.equal(await look('again.db'), 3);
  assert.equal(follower.said.stderr.match(/disk is full/g)?.length, 1, 'it is said once');
});
